"""The command that measures a gradient as the paper did."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from astropy.io import fits

from metalgrad.annular import annular_gradient
from metalgrad.calibrations import load_calibration
from metalgrad.columns import LINE_FLUX
from metalgrad.cubes import Cube
from metalgrad.files import NewFile, refuse_to_overwrite
from metalgrad.linefit import DETECTED, fit_lines
from metalgrad.lsf import constant
from metalgrad.options import (
    AIMLESS,
    Masks,
    Out,
    Overwrite,
    Resolution,
    aim,
    can_draw,
    cover,
    plotter,
    save,
)
from metalgrad.spaxels import Spaxels


def classical(
    cube: Annotated[Path, typer.Argument(help="Cube (s3d).")],
    *,
    out: Out,
    target: Annotated[str, typer.Option(help="Card of a target, or your own.")] = "",
    redshift: Annotated[float | None, typer.Option(help="Of the galaxy.")] = None,
    center: Annotated[str, typer.Option(help='"RA DEC" of the centre.')] = "",
    peak: Annotated[
        str, typer.Option(help="Centre on the peak of it: continuum, OIII, ...")
    ] = "",
    radius: Annotated[float | None, typer.Option(help="Of the last [arcsec].")] = None,
    kpc_per_arcsec: Annotated[float | None, typer.Option(help="Scale.")] = None,
    mask: Masks = None,
    region: Annotated[Path | None, typer.Option(help="DS9 region file.")] = None,
    goal_fwhm: Annotated[
        float | None, typer.Option(help="Smooth to this PSF first [arcsec].")
    ] = None,
    slice_angle: Annotated[
        float | None, typer.Option(help="Of the slices, from +y to -x [deg].")
    ] = None,
    resolution: Resolution = None,
    calibration: Annotated[
        str, typer.Option(help="Card of a calibration.")
    ] = "curti23",
    trust_errors: Annotated[
        bool, typer.Option("--trust-errors", help="Take the cube's errors as they are.")
    ] = False,
    overwrite: Overwrite = False,
):
    """Measure the gradient in annuli, with line fits and a least χ², as the paper."""
    refuse_to_overwrite(out / "annuli.ecsv", overwrite=overwrite)
    galaxy = aim(target, redshift, center, radius, kpc_per_arcsec)
    if galaxy is None:
        raise ValueError(AIMLESS)
    galaxy = cover(galaxy, mask)
    data, lsf = Cube.read(cube), constant(resolution) if resolution else None
    result = annular_gradient(
        data,
        galaxy,
        calibration=load_calibration(calibration),
        goal_fwhm=goal_fwhm,
        slice_angle=slice_angle,
        centre=peak or None,
        region=region,
        lsf=lsf,
        measure_noise=not trust_errors,
    )
    # Flux maps are those of the cube as it is (Sect. 2.2.1 of the paper).
    spaxels = Spaxels.select(data, result.target, region, lsf=lsf)
    with NewFile(out / "maps.fits") as fresh:
        flux_maps(fit_lines(spaxels, rescale=not trust_errors)).writeto(fresh)
    if can_draw():
        save({"annuli": plotter("annular_plot").annuli(result)}, out)
    with NewFile(out / "gradient.ecsv") as fresh:
        result.summary().write(fresh, format="ascii.ecsv")
    with NewFile(out / "annuli.ecsv") as fresh:
        result.to_table().write(fresh, format="ascii.ecsv")
    typer.echo(_describe(result))
    typer.echo(f"written to {out}")


def flux_maps(fit) -> fits.HDUList:
    """Lay fluxes out on the sky: all, their errors, and those above 3 sigma.

    Parameters
    ----------
    fit : LineFit
        Of spaxels.

    Returns
    -------
    HDUList
        ``LINE``, ``LINE_ERR``, and ``LINE_CUT``, NaN where S/N is 3 or less.
    """
    hdus = [fits.PrimaryHDU()]
    for line, flux in fit.flux.items():
        error = np.where(np.isfinite(fit.error[line]), fit.error[line], np.nan)
        shown = np.where(flux > DETECTED * error, flux, np.nan)
        for name, values in (("", flux), ("_ERR", error), ("_CUT", shown)):
            unit = LINE_FLUX.to_string("fits")
            hdus.append(fit.spectra.map_hdu(values, f"{line}{name}".upper(), unit))
    return fits.HDUList(hdus)


def _describe(result):
    """One sentence for each number of the paper's Table 4."""
    line, scaled = result.line, result.line_per_effective_radius
    count, known = len(result.error), int(np.isfinite(result.error).sum())
    ratios = ", ".join(result.metallicity.ratios)
    return (
        f"ratios with a dispersion: {ratios}\n"
        f"gradient {line.slope:+.3f} ± {line.slope_error:.3f} dex/kpc, "
        f"{scaled.slope:+.3f} ± {scaled.slope_error:.3f} dex/R_e, of {known} in {count}"
        f" annuli; 12+log(O/H) at the centre {line.central:.2f} ± "
        f"{line.central_error:.2f}; R_e {result.size.kpc:.2f} kpc, not deconvolved"
    )

"""The command that weighs the stars of a galaxy."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import astropy.units as u
import numpy as np
import typer
from astropy.table import Table

from metalgrad.cubes import FLUX_DENSITY, Cube
from metalgrad.files import NewFile
from metalgrad.linefit import fit_lines
from metalgrad.lsf import constant
from metalgrad.options import AIMLESS, Out, Resolution, aim, can_draw, plotter, save
from metalgrad.sed import fit_sed
from metalgrad.spaxels import Spaxels
from metalgrad.sums import add_up

QUANTITIES = (
    "log_mass",
    "log_mass_formed",
    "sfr",
    "stellar_metallicity",
    "a_v",
    "log_u",
)
QUANTILES = {"q16": 0.16, "q50": 0.5, "q84": 0.84}


def weigh(
    cube: Annotated[Path, typer.Argument(help="Cube (s3d).")],
    *,
    out: Out,
    target: Annotated[str, typer.Option(help="Card of a target, or your own.")] = "",
    redshift: Annotated[float | None, typer.Option(help="Of the galaxy.")] = None,
    center: Annotated[str, typer.Option(help='"RA DEC" of the aperture.')] = "",
    radius: Annotated[
        float | None, typer.Option(help="Of the aperture [arcsec].")
    ] = None,
    region: Annotated[Path | None, typer.Option(help="DS9 region file.")] = None,
    magnification: Annotated[
        float | None, typer.Option(help="Of a lens; the card's by default.")
    ] = None,
    resolution: Resolution = None,
    lsf_scale: Annotated[
        float, typer.Option(help="LSF over its table; below 1 for a point source.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
    live: Annotated[int, typer.Option(min=50, help="Live points.")] = 400,
    effective: Annotated[int, typer.Option(min=1, help="Sample size to reach.")] = 1000,
):
    """Fit stars, dust and gas to the sum of an aperture, with bagpipes.

    Errors of the sum are scaled as its line-free channels scatter.  Minutes; the same
    command goes on where it was, or reads what it found.
    """
    galaxy = aim(target, redshift, center, radius, None)
    if galaxy is None:
        raise ValueError(AIMLESS)
    if magnification is not None:
        galaxy = replace(galaxy, magnification=magnification)
    lsf = constant(resolution) if resolution else None
    total = add_up(Spaxels.select(Cube.read(cube), galaxy, region, lsf=lsf))
    noise = np.nan_to_num(fit_lines(total, integrated=True).noise[0], nan=1.0)
    posterior = fit_sed(
        (total.edges[1:] + total.edges[:-1]) / 2 * u.um,
        total.flux[0] * FLUX_DENSITY,
        total.error[0] * max(noise, 1.0) * FLUX_DENSITY,
        redshift=total.redshift,
        seed=seed,
        out=out,
        magnification=galaxy.magnification,
        lsf=total.lsf,
        lsf_scale=lsf_scale,
        live=live,
        effective=effective,
    )
    table = summarise(posterior)
    with NewFile(out / "summary.ecsv") as fresh:
        table.write(fresh, format="ascii.ecsv")
    typer.echo("\n".join(table.pformat(max_lines=-1, max_width=-1)))
    if can_draw():
        plot = plotter("sedplot")
        pictures = {"spectrum": plot.spectrum, "history": plot.history}
        pictures["corner"] = plot.corner
        save({name: draw(posterior) for name, draw in pictures.items()}, out)
    typer.echo(f"written to {out}")


def summarise(posterior) -> Table:
    """Return quantiles of mass, rate, metallicity, dust and ionisation.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit_sed`.
    """
    draws, rows = posterior["posterior"].dataset, []
    for name in QUANTITIES:
        values = draws[name].values.ravel()
        unit = draws[name].attrs.get("units", "")
        rows.append((name, unit, *np.quantile(values, [*QUANTILES.values()])))
    table = Table(rows=rows, names=("name", "unit", *QUANTILES))
    for name in QUANTILES:
        table[name].format = ".4g"
    return table

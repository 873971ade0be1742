"""What a paper prints of a galaxy: its maps on one sheet, its annuli beside the fit.

Figures 2 to 4 and 6 of Venturi et al. (2024), of a cube of one's own::

    fit = mg.fit_lines(spaxels)
    mg.plot.overview(fit, posterior)
    mg.plot.against_annuli(posterior, mg.annular_gradient(cube, target), fit)
"""

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon
from xarray import DataTree

from metalgrad import lines, maps, panels, skymaps
from metalgrad.annular import AnnularGradient
from metalgrad.annular_plot import annuli as draw_annuli
from metalgrad.classical import ChiSquareMetallicity
from metalgrad.linefit import LineFit
from metalgrad.psf import PSF, nirspec
from metalgrad.sums import add_up

NIRSPEC = nirspec()
LEVELS = (0.2, 0.4, 0.6, 0.8)  # of the continuum's peak: ours
APART = 0.05  # µm, between names of lines in a spectrum
HEADROOM = 1.3  # of a spectrum, over its highest line, for their names
DEPTH = 0.2  # of the same, below zero at most


def overview(
    fit: LineFit,
    metallicity: DataTree | ChiSquareMetallicity,
    *,
    line: str = "OIII",
    wavelengths: tuple[float, float] = (1.0, 2.0),
    aperture: float = 0.15,
    psf: PSF = NIRSPEC,
) -> Figure:
    """Draw maps of continuum, a line and metallicity, and a spectrum below them.

    As Figs. 2 to 4 of Venturi et al. (2024), and the metallicity's standard error
    beside it. Contours are those of the continuum, the circle is the aperture of the
    spectrum, and grey is where nothing was measured.

    Parameters
    ----------
    fit : LineFit
        Of the spaxels to be shown, from `metalgrad.fit_lines`; they may be more than
        were fitted jointly, of the same cube.
    metallicity : xarray.DataTree or ChiSquareMetallicity
        From `metalgrad.fit`; or the paper's, one for each spaxel of ``fit``, from
        `metalgrad.classical.chi2_metallicity`.
    line : str
        Whose flux is drawn, where it is above 3 standard errors.
    wavelengths : (float, float)
        Of the continuum, observed [µm].
    aperture : float
        Radius about the galaxy's centre within which spectra are summed [arcsec].
    psf : PSF
        Whose FWHM at the line is marked; NIRSpec's by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the spaxels have no scale or lie on no grid, the aperture holds none of them,
        the line was not fitted, or ``metallicity`` is of another cube.
    """
    spaxels = fit.spectra
    middle = skymaps.find_middle(spaxels)
    shown = {
        "CONTINUUM": skymaps.light_map(spaxels, wavelengths),
        "FLUX": skymaps.flux_map(fit, line),
        **skymaps.metallicity_maps(metallicity, spaxels),
    }
    figure = plt.figure(figsize=(8.6, 5.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[1.15, 1])
    wcs = skymaps.offsets(spaxels, middle)
    axes = [upper.add_subplot(1, 4, n + 1, projection=wcs) for n in range(len(shown))]
    for ax, (name, found) in zip(axes, shown.items(), strict=True):
        skymaps.draw_sky(ax, wcs, name, found, spaxels, is_first=ax is axes[0])
        radius = aperture / spaxels.pixel_scale
        ax.add_patch(Circle(middle[::-1], radius, fill=False, ec=panels.SKY, lw=1.4))
    for ax in axes[1:]:
        ax.contour(
            shown["CONTINUUM"].values, colors="black", linewidths=0.5, alpha=0.7,
            levels=np.multiply(LEVELS, np.nanmax(shown["CONTINUUM"].values)),
        )  # fmt: skip
    skymaps.mark_beam(axes[1], wcs, skymaps.resolution(psf, line, spaxels.redshift))
    skymaps.mark_scale(axes[1], wcs, spaxels.kpc_per_arcsec)
    _draw_total(lower.add_subplot(), fit, middle, aperture)
    figure.suptitle(spaxels.target)
    return figure


def against_annuli(
    posterior: DataTree,
    result: AnnularGradient,
    fit: LineFit,
    *,
    line: str = "OIII",
    fwhm: float | None = None,
) -> Figure:
    """Draw annuli on the map of a line, and their metallicities beside the joint fit's.

    As Fig. 6 of Venturi et al. (2024): metallicities of annuli and the line through
    them (red), with the mean field of the joint fit over them (blue; median, 68 and
    95 %), and the resolution as a dashed line. Masks of the target are shaded.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`, radii in kpc.
    result : AnnularGradient
        From `metalgrad.annular_gradient`.
    fit : LineFit
        Of the spaxels of the map, from `metalgrad.fit_lines`.
    line : str
        Whose flux is drawn, where it is above 3 standard errors.
    fwhm : float, optional
        Of the PSF [arcsec]: the goal, if the cube was smoothed to one; NIRSpec's at the
        line by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the two are centred more than a spaxel apart, the posterior's radii are not
        in kpc, the line was not fitted, or the spaxels have no scale or sky
        coordinates.
    """
    spaxels, target = fit.spectra, result.target
    middle, wcs = skymaps.find_middle(spaxels), skymaps.celestial(spaxels)
    centre = target.centre.to_pixel(wcs)[::-1]
    _refuse_foreign(posterior, centre)
    if fwhm is None:
        fwhm = skymaps.resolution(NIRSPEC, line, spaxels.redshift)
    figure = plt.figure(figsize=(9.4, 4.3), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.25])
    offsets = skymaps.offsets(spaxels, middle)
    ax = left.add_subplot(projection=offsets)
    skymaps.draw_sky(
        ax, offsets, "FLUX", skymaps.flux_map(fit, line), spaxels, is_first=True
    )
    for outer in result.outer:
        edge = _ellipse(target, outer, wcs)
        ax.add_patch(Polygon(edge, fill=False, ec="white", lw=1.6))
        ax.add_patch(Polygon(edge, fill=False, ec="black", lw=0.7))
    ax.set_xlim(*skymaps.stretch(ax.get_xlim(), edge[:, 0]))  # the last is the largest
    ax.set_ylim(*skymaps.stretch(ax.get_ylim(), edge[:, 1]))
    for place, size in target.masks:
        edge = _circle(place, size * u.arcsec, wcs)
        ax.add_patch(Polygon(edge, fc="0.5", ec="black", alpha=0.6, hatch="//"))
    panels.mark_centre(ax, *centre)
    skymaps.mark_beam(ax, offsets, fwhm)
    skymaps.mark_scale(ax, offsets, spaxels.kpc_per_arcsec)
    _draw_both(right.add_subplot(), posterior, result, fwhm * target.kpc_per_arcsec)
    return figure


def _draw_both(ax, posterior, result, resolution):
    """Draw the annuli and their line, and the joint fit over them."""
    draw_annuli(result, ax=ax, color=panels.RED)
    low, high = ax.get_ylim()
    radii = np.linspace(*ax.get_xlim(), 100)
    panels.draw_field(ax, posterior, radii)
    ax.set_ylim(min(low, ax.get_ylim()[0]), max(high, ax.get_ylim()[1]))
    ax.axvline(resolution, color=panels.GREY, ls="--", lw=1.2, label="PSF FWHM")
    annular = ax.get_title().partition(": ")[2]
    joint = panels.title(posterior).rpartition(": ")[2].removeprefix("slope = ")
    ax.set_title(
        f"{result.target.name}\nannuli: {annular};  joint fit: {joint}",
        fontsize="small",
    )
    panels.add_legend(ax)


def _draw_total(ax, fit, middle, aperture):
    """Draw the spectrum of an aperture, its lines named."""
    spaxels = fit.spectra
    apart = np.hypot(*(spaxels.index - np.array(middle)).T) * spaxels.pixel_scale
    inside = apart <= aperture
    if not inside.any():
        raise ValueError(
            f"no spaxel lies within {aperture:g} arcsec of the centre; widen aperture"
        )
    total = add_up(spaxels, np.where(inside, 0, -1))
    good = np.isfinite(total.error[0])
    flux, error = (np.where(good, v[0], np.nan) for v in (total.flux, total.error))
    wave = (total.edges[:-1] + total.edges[1:]) / 2
    band = {"step": "mid", "color": panels.SKY, "alpha": 0.6, "lw": 0}
    ax.axhline(0, color="0.6", lw=0.8)
    ax.fill_between(wave, flux - error, flux + error, **band)
    ax.step(wave, flux, where="mid", color="black", lw=0.9)
    catalogue = lines.catalogue()
    place = {n: catalogue[n].wavelength * (1 + spaxels.redshift) for n in fit.flux}
    for where in place.values():
        ax.axvline(where, color=panels.ORANGE, lw=0.8, ls=":", zorder=0)
    for where, said in panels.name_groups(place, APART):
        ax.annotate(
            said, (where, 0.97), xycoords=("data", "axes fraction"), rotation=90,
            ha="right", va="top", fontsize="x-small",
        )  # fmt: skip
    near = np.abs(wave[:, None] - list(place.values())).min(axis=1) < APART
    top = np.nanmax(flux[near])
    bottom = max(np.nanmin(flux), -DEPTH * top)  # channels at the edges may be wild
    ax.set(xlim=wave[[0, -1]], ylim=(bottom - 0.05 * top, HEADROOM * top))
    ax.set(
        xlabel="observed wavelength [µm]", ylabel=f"flux density\n[{skymaps.DENSITY}]"
    )
    said = f'{inside.sum()} spaxels within {aperture:g}" of the centre'
    ax.set_title(said, fontsize="small", loc="left")


def _refuse_foreign(posterior, centre):
    """Refuse a posterior that knows other radii than the annuli."""
    length, theirs = posterior.attrs.get("length"), maps.centre(posterior)
    if length != "kpc" or theirs is None:
        raise ValueError(
            f"the fit's radii are in {length}, or on no map; annuli have theirs in kpc "
            "on the sky: fit Spaxels of the same cube"
        )
    apart = np.hypot(*np.subtract(theirs, centre))
    if apart > 1:
        raise ValueError(
            f"the joint fit is centred {apart:.1f} spaxels from the annuli, so that "
            "their radii are not the same; fit Spaxels.select(cube, result.target)"
        )


def _ellipse(target, radius, wcs):
    """Pixels (x, y) of a circle in the plane of the disc, of a radius in arcsec."""
    turn = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    along, across = np.cos(turn), target.axis_ratio * np.sin(turn)
    angle = target.position_angle * u.deg + np.arctan2(across, along) * u.rad
    size = radius * np.hypot(along, across) * u.arcsec
    place = target.centre.directional_offset_by(angle, size)
    return np.transpose(place.to_pixel(wcs))


def _circle(place, radius, wcs):
    """Pixels (x, y) of a circle on the sky."""
    turn = np.linspace(0, 360, 100, endpoint=False) * u.deg
    return np.transpose(place.directional_offset_by(turn, radius).to_pixel(wcs))

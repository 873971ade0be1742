"""Maps of what was fitted spaxel by spaxel, on the sky about the galaxy's centre."""

import astropy.units as u
import numpy as np
from astropy.visualization.wcsaxes import add_beam, add_scalebar
from astropy.wcs import WCS
from xarray import DataTree

from metalgrad import lines, maps, panels
from metalgrad.columns import LINE_FLUX
from metalgrad.linefit import DETECTED
from metalgrad.positions import read_wcs
from metalgrad.sizes import continuum_map

DENSITY = r"$10^{-20}$ erg s$^{-1}$ cm$^{-2}$ µm$^{-1}$"
BLANK = "0.93"  # where nothing was measured, which is not zero


def find_middle(spaxels):
    """Row and column of the galaxy's centre."""
    middle = None
    if spaxels.pixel_scale is not None:
        middle = maps.origin(spaxels.index, spaxels.position)
    if middle is None:
        raise ValueError(
            f"the {len(spaxels)} spectra of the line fit are no map: they have no "
            "pixel_scale or lie on no grid; fit the lines of Spaxels.select(cube, ...)"
        )
    return middle


def celestial(spaxels):
    """Sky coordinates of the spaxels' cube."""
    if not spaxels.header:
        raise ValueError(
            "the spaxels have no sky coordinates to lay annuli on; select them from a "
            "cube with a WCS"
        )
    return read_wcs(spaxels.header)


def offsets(spaxels, middle):
    """Sky coordinates relative to the centre; None where there are none."""
    if not spaxels.header:
        return None
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cunit = ["RA---TAN", "DEC--TAN"], ["deg", "deg"]
    wcs.wcs.crval, wcs.wcs.crpix = (0, 0), np.add(middle[::-1], 1)
    wcs.wcs.cd = celestial(spaxels).pixel_scale_matrix
    return wcs


def flux_map(fit, line):
    """Map of a line, blank where it is not detected."""
    if line not in fit.flux:
        raise ValueError(
            f"{line} was not fitted, so it has no map; choose among "
            f"{', '.join(fit.flux)}"
        )
    flux = np.where(fit.flux[line] > DETECTED * fit.error[line], fit.flux[line], np.nan)
    if not np.isfinite(flux).any():
        raise ValueError(
            f"{line} is detected in no spaxel; choose another line, or sum spaxels "
            "with metalgrad.add_up first"
        )
    return maps.Map(fit.spectra.to_map(flux), LINE_FLUX.to_string("fits"), line)


def light_map(spaxels, wavelengths):
    """Map of the continuum."""
    light = spaxels.to_map(continuum_map(spaxels, wavelengths))
    said = "continuum, {:g} to {:g} µm\n".format(*wavelengths)  # a narrow panel
    return maps.Map(light, DENSITY, said)


def metallicity_maps(found, spaxels):
    """Map of the metallicity and of its standard error."""
    names = ("METALLICITY", "METALLICITY_SD")
    if isinstance(found, DataTree):
        laid_out = maps.lay_out(found)
        values = [laid_out[name].values for name in names]
    elif found.metallicity.shape == (len(spaxels),):
        best = np.where(found.at_edge, np.nan, found.metallicity)
        error = np.where(found.at_edge, np.nan, (found.upper - found.lower) / 2)
        values = [spaxels.to_map(best), spaxels.to_map(error)]
    else:
        values = [np.empty((0, 0))]
    if values[0].shape != tuple(spaxels.shape):
        raise ValueError(
            f"the metallicities are no map of the {len(spaxels)} spaxels in "
            f"{spaxels.shape[0]} rows and {spaxels.shape[1]} columns whose lines were "
            "fitted; give those of the same cube"
        )
    if not np.isfinite(values[1]).any():
        raise ValueError(
            "no spaxel has a metallicity to draw: no ratio above the cut in S/N, or "
            "all at the calibration's end; draw that of a joint fit, or bin the spaxels"
        )
    said = ("12 + log(O/H)", "its standard error [dex]")
    return {
        name: maps.Map(*each)
        for name, *each in zip(names, values, ("", ""), said, strict=True)
    }


def resolution(psf, line, redshift):
    """FWHM of a round PSF of the same area at a line [arcsec]."""
    return psf.rounded().fwhm(lines.catalogue()[line].wavelength * (1 + redshift))[0]


def draw_sky(ax, wcs, name, found, spaxels, *, is_first):
    """Draw a map whose view is that of all spaxels."""
    ax.set_facecolor(BLANK)
    panels.draw_map(ax, found, name, bar_at="top")
    _thin_out(ax.images[0].colorbar)
    for limit, where in zip((ax.set_ylim, ax.set_xlim), spaxels.index.T, strict=True):
        limit(where.min() - 1.5, where.max() + 1.5)
    panels.label_sky(ax, wcs, bottom=True, left=is_first)
    if wcs is None:
        return
    for axis, said in zip(ax.coords, ("ΔRA", "ΔDec"), strict=True):
        if axis.coord_type == "longitude":
            axis.set_coord_type("longitude", coord_wrap=180 * u.deg)
        axis.set_format_unit(u.arcsec, decimal=True, show_decimal_unit=False)
        axis.set_ticks(number=4)
        is_named = is_first or said == "ΔRA"
        axis.set_ticklabel_visible(is_named)
        axis.set_axislabel(f"{said} [arcsec]" if is_named else " ")


def _thin_out(bar):
    """Leave few ticks on a logarithmic bar, which is too short for those of powers."""
    if bar.ax.get_xscale() == "log":
        ticks = np.outer(10.0 ** np.arange(-6, 9), (1, 2, 5)).ravel()
        ticks = ticks[(ticks >= bar.vmin) & (ticks <= bar.vmax)]
        bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
        bar.minorticks_off()


def stretch(limits, values, margin=1.0):
    """Widen limits to hold values and a margin [pixel]."""
    low, high = limits
    return min(low, values.min() - margin), max(high, values.max() + margin)


def mark_beam(ax, wcs, fwhm):
    """Mark the PSF in a corner, as radio astronomers do."""
    if wcs is not None:
        size = fwhm * u.arcsec
        add_beam(ax, major=size, minor=size, angle=0 * u.deg, frame=True, fc="0.4")


def mark_scale(ax, wcs, kpc_per_arcsec):
    """Mark one kpc in a corner."""
    if wcs is not None and kpc_per_arcsec is not None:
        add_scalebar(ax, u.arcsec / kpc_per_arcsec, label="1 kpc", frame=True, pad=0.3)

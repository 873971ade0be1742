"""The layouts of FITS files that hold spectra, units and masks.

Three are known by their content: cubes (``s3d``) and extracted spectra (``x1d``) of the
``jwst`` pipeline, and spectra of ``msaexp`` (``spec.fits``).
"""

import re

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area, proj_plane_pixel_scales

from metalgrad import bins
from metalgrad.headers import find_slices

# Scaled so that the square of a flux density still fits into float32.
FLUX_DENSITY = u.Unit(1e-20 * u.erg / u.s / u.cm**2 / u.um)
# Bits 0 (DO_NOT_USE) and 9 (NON_SCIENCE) of the pipeline's data-quality flags.
UNUSABLE = 2**0 + 2**9
# Wavelength, flux and error of a spectrum, by the name of its extension.
SPECTRA = {
    "SPEC1D": ("WAVE", "FLUX", "ERR"),
    "EXTRACT1D": ("WAVELENGTH", "FLUX", "FLUX_ERROR"),
}
NEAR, FAR = 0.05 * u.um, 1000 * u.um  # wavelengths beyond are none of a galaxy's light
SQUARE = 0.01  # of its side, by which a pixel's sides may differ

_CELESTIAL = re.compile(
    r"C(TYPE|RPIX|RVAL|UNIT|DELT|ROTA)[12]|(PC|CD)[12]_[12]|L..POLE|RADESYS|EQUINOX"
)
_STRUCTURAL = re.compile(
    r"SIMPLE|BITPIX|NAXIS|EXTEND|COMMENT|HISTORY|CHECKSUM|DATASUM|DATE|FILENAME|"
)


def parse(hdus, path) -> dict:
    """Find out the layout, and read the fields of a `metalgrad.cubes.Cube`.

    Parameters
    ----------
    hdus : HDUList
    path : path
        To name in errors.

    Raises
    ------
    ValueError
        As `metalgrad.cubes.Cube.read`.
    """
    names = [hdu.name for hdu in hdus]
    meta = {k: v for k, v in hdus[0].header.items() if not _STRUCTURAL.fullmatch(k)}
    # Spectra first: msaexp's files hold a two-dimensional SCI besides.
    for name, columns in SPECTRA.items():
        if name in names:
            return _parse_spectrum(hdus, path, name, columns) | {"meta": meta}
    if "SCI" in names:
        return _parse_s3d(hdus, path) | {"meta": meta}
    raise ValueError(
        f"{path} has no extension SCI (s3d), EXTRACT1D (x1d) or SPEC1D (spec.fits) "
        f"among {', '.join(names)}; pass a cube or an extracted spectrum"
    )


def _parse_s3d(hdus, path):
    if "ERR" not in hdus:
        raise ValueError(f"{path} has no extension ERR; pass a cube with its errors")
    flux, error = hdus["SCI"].data, hdus["ERR"].data
    if np.ndim(flux) != 3 or np.shape(error) != np.shape(flux):
        raise ValueError(
            f"{path} has SCI of shape {np.shape(flux)} and ERR of {np.shape(error)} "
            "where one shape (wave, y, x) is expected; pass an s3d cube"
        )
    header = hdus["SCI"].header
    # From the celestial cards alone: the others would only raise warnings.
    cards = [card for card in header.cards if _CELESTIAL.fullmatch(card.keyword)]
    wcs = WCS(fits.Header(cards), naxis=2)
    wcs = wcs if wcs.has_celestial else None
    area = _pixel_area(header, wcs, path)
    units = [hdus[k].header.get("BUNIT", header.get("BUNIT")) for k in ("SCI", "ERR")]
    usable = _usable(hdus, flux.shape, path)
    data = _fields((flux, error), units, _edges(hdus, path), usable, path, area)
    data |= {"wcs": wcs, "slices": find_slices(hdus)}
    return data | {"pixel_scale": np.sqrt(area).to(u.arcsec)}


def _usable(hdus, shape, path):
    """Voxels that are neither flagged nor without weight, (wave, y, x)."""
    if "DQ" not in hdus and "CAL_VER" in hdus[0].header:
        raise ValueError(
            f"{path} is of the jwst pipeline (CAL_VER) and has no extension DQ, as if "
            "it were truncated; fetch it again, or remove CAL_VER if DQ was left out"
        )
    usable = np.ones(shape, dtype=bool)
    for name, kinds in (("DQ", "ui"), ("WMAP", "uif")):
        if name not in hdus:
            continue
        values = hdus[name].data
        if np.shape(values) != shape or values.dtype.kind not in kinds:
            raise ValueError(
                f"{path} has {name} of shape {np.shape(values)} and type "
                f"{getattr(values, 'dtype', None)} where {shape} of "
                f"{'integers' if kinds == 'ui' else 'numbers'} is expected; mend it, "
                "or remove the extension"
            )
        is_flags = name == "DQ"
        usable &= (values & UNUSABLE) == 0 if is_flags else values > 0
    return usable


def _parse_spectrum(hdus, path, name, columns):
    table, *others = [hdu for hdu in hdus if hdu.name == name]
    known = [key.upper() for key in table.columns.names]
    # Old versions of the pipeline named it so.
    renamed = {"FLUX_ERROR": "ERROR"} if "ERROR" in known else {}
    columns = [renamed.get(column, column) for column in columns]
    if others or not set(columns) <= set(known):
        raise ValueError(
            f"{path} has {len(others) + 1} {name} of {', '.join(known)} where one of "
            f"{', '.join(columns)} is expected; save one spectrum as such"
        )
    wave, flux, error = (_native(table.data[column]) for column in columns)
    units = [table.columns[column].unit for column in columns]
    scale = u.Unit(units[0] or u.um).to(u.um)
    edges = bins.between(wave.astype(float) * scale, str(path)) << u.um
    usable = np.ones(wave.shape, dtype=bool)
    if "DQ" in known:
        usable &= (table.data["DQ"].astype(np.uint32) & UNUSABLE) == 0
    data = [values[:, None, None] for values in (flux, error)]
    return _fields(data, units[1:], edges, usable[:, None, None], path)


def _fields(data, units, edges, usable, path, area=None):
    """Convert units and find the good voxels; ``data``, ``units`` of flux, error."""
    wave = (edges[:-1] + edges[1:]) / 2
    flux, error = (
        rescale(values, convert(unit, wave, area, path)) << FLUX_DENSITY
        for values, unit in zip(data, units, strict=True)
    )
    if negative := np.count_nonzero(error.value < 0):
        raise ValueError(
            f"{path} has {negative} negative errors where standard deviations are "
            "expected; set them to NaN if they mark voxels without data"
        )
    good = usable & np.isfinite(flux.value) & np.isfinite(error.value)
    good &= error.value > 0
    if not good.any():
        raise ValueError(
            f"{path} has no good voxel among {good.size}: all are flagged, without "
            "weight, not finite or without error; check its DQ, WMAP and ERR"
        )
    return {"flux": flux, "error": error, "edges": edges, "good": good}


def convert(unit, wave, area, path="the cube"):
    """Find the factor to `FLUX_DENSITY`, (wave), with the area for a brightness.

    Raises
    ------
    ValueError
        If the unit is neither a flux density nor a surface brightness.
    """
    density = u.spectral_density(wave)
    try:
        spelt = re.sub(r"\bA\b", "Angstrom", unit) if isinstance(unit, str) else unit
        value = np.ones(len(wave)) * u.Unit(spelt)  # none is per ampere
        if area is not None and not value.unit.is_equivalent(FLUX_DENSITY, density):
            value = value * area
        return value.to_value(FLUX_DENSITY, density)
    except (TypeError, ValueError) as problem:  # what Astropy raises for units
        raise ValueError(
            f"{path} has values in the unit {unit} where MJy/sr (a cube) or a flux "
            "density such as Jy is expected; set BUNIT, or the column's TUNIT"
        ) from problem


def _native(data):
    """Copy to the machine's byte order, floats of the width that they had."""
    return data.astype(np.result_type(data.dtype.newbyteorder("="), np.float32))


def rescale(data, factor) -> np.ndarray:
    """Scale each plane in the precision of the data."""
    scaled = _native(data)
    scaled *= factor[:, None, None].astype(scaled.dtype)
    return scaled


def _pixel_area(header, wcs, path):
    if wcs is not None:
        sides = proj_plane_pixel_scales(wcs) * 3600
        if np.ptp(sides) > SQUARE * sides.min():
            raise ValueError(
                f"{path} has spaxels of {sides[0]:.4g} x {sides[1]:.4g} arcsec where "
                "square ones are expected; resample it"
            )
    if "PIXAR_SR" in header:
        return header["PIXAR_SR"] * u.sr
    if wcs is not None:
        return (proj_plane_pixel_area(wcs) * u.deg**2).to(u.sr)
    raise ValueError(
        f"{path} has neither PIXAR_SR nor a celestial WCS in SCI, so its surface "
        "brightness cannot become flux; add PIXAR_SR [sr] to the header"
    )


def _edges(hdus, path):
    header = hdus["SCI"].header
    tables = [hdu.data for hdu in hdus if hdu.name == header.get("PS3_0", "WCS-TABLE")]
    cells = {key: table[key] for table in tables for key in table.names}
    scale = u.Unit(header.get("CUNIT3", "m")).to(u.um)
    edges = bins.from_axis(header, cells, str(path)) * scale << u.um
    if "CUNIT3" not in header and not np.all((edges > NEAR) & (edges < FAR)):
        raise ValueError(
            f"{path} has wavelengths from {edges[0]:.4g} to {edges[-1]:.4g}, for they "
            "are in metres where CUNIT3 says nothing; add it to the header of SCI"
        )
    return edges

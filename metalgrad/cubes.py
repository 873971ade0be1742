"""The door through which spectra come in: FITS files, units and masks.

Three layouts are known by their content: cubes (``s3d``) and extracted spectra
(``x1d``) of the ``jwst`` pipeline, and spectra of ``msaexp`` (``spec.fits``).
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area
from jaxtyping import Bool, Float

from metalgrad import bins
from metalgrad.headers import find_slices, read_whole, roll_cards

# Scaled so that the square of a flux density still fits into float32.
FLUX_DENSITY = u.Unit(1e-20 * u.erg / u.s / u.cm**2 / u.um)
# Bits 0 (DO_NOT_USE) and 9 (NON_SCIENCE) of the pipeline's data-quality flags.
UNUSABLE = 2**0 + 2**9
# Wavelength, flux and error of a spectrum, by the name of its extension.
SPECTRA = {
    "SPEC1D": ("WAVE", "FLUX", "ERR"),
    "EXTRACT1D": ("WAVELENGTH", "FLUX", "FLUX_ERROR"),
}

_CELESTIAL = re.compile(
    r"C(TYPE|RPIX|RVAL|UNIT|DELT|ROTA)[12]|(PC|CD)[12]_[12]|L..POLE|RADESYS|EQUINOX"
)
_STRUCTURAL = re.compile(
    r"SIMPLE|BITPIX|NAXIS|EXTEND|COMMENT|HISTORY|CHECKSUM|DATASUM|DATE|FILENAME|"
)


@dataclass(frozen=True, eq=False)
class Cube:
    """Flux densities on the sky and in wavelength, with their errors.

    Parameters
    ----------
    flux : Quantity, (wave, y, x)
        Flux density in each spaxel, per unit wavelength; anything where not ``good``.
    error : Quantity, (wave, y, x)
        Its standard deviation, in the unit of ``flux``.
    edges : Quantity, (wave + 1)
        Edges of the wavelength bins (vacuum, observed), increasing.
    good : array of bool, (wave, y, x)
        True where the voxel may be used.
    wcs : WCS or None
        Celestial coordinates of the spaxels; None for a bare spectrum.
    pixel_scale : Quantity or None
        Side of a square spaxel, an angle; None for a bare spectrum.
    meta : dict
        Cards of the primary header.
    slices : Quantity or None
        Position angle of the IFU's slices on the sky; None if it is not known.
    """

    flux: Float[u.Quantity, "wave y x"]
    error: Float[u.Quantity, "wave y x"]
    edges: Float[u.Quantity, " wave+1"]
    good: Bool[np.ndarray, "wave y x"]
    wcs: WCS | None = None
    pixel_scale: u.Quantity | None = None
    meta: dict = field(default_factory=dict)
    slices: u.Quantity | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.flux.shape[1:]

    @property
    def wave(self) -> Float[u.Quantity, " wave"]:
        """Centres of the wavelength bins."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    @classmethod
    def read(cls, path: str | Path) -> "Cube":
        """Read a cube or a spectrum.

        A voxel is good unless it is flagged DO_NOT_USE or NON_SCIENCE, its flux or
        error is not finite, its error is zero (a pipeline's mark for "no data"), or its
        weight (WMAP) is zero. Bins of a tabulated wavelength axis meet half-way between
        their neighbours; the first and the last are symmetric.

        Parameters
        ----------
        path : path
            FITS file: an ``s3d``, an ``x1d`` or a ``spec.fits``; may be gzipped.

        Returns
        -------
        Cube
            With flux densities in 1e-20 erg/s/cm2/um per spaxel. A spectrum becomes a
            cube of one spaxel, without sky coordinates.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is not a whole FITS file, lacks what is needed, or has wrong
            units, wavelengths that do not increase, negative errors, or no good voxel.
        """
        return cls(**_parse(read_whole(path), path))

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the cube as an ``s3d``, in MJy/sr, so that ``Cube.read`` gives it back.

        ``meta`` goes into the primary header. A wavelength axis that is not linear is
        written as WAVE-TAB, with the bins' edges in a second column of its table.

        Parameters
        ----------
        path : path
            FITS file to write.
        overwrite : bool
            Replace a file that is there.

        Raises
        ------
        OSError
            If the file exists and ``overwrite`` is False.
        ValueError
            If the cube has no ``wcs`` or ``pixel_scale``.
        """
        if self.wcs is None or self.pixel_scale is None:
            raise ValueError("no s3d without wcs and pixel_scale; set both in Cube")
        area = (self.pixel_scale**2).to(u.sr)
        scale = 1 / _conversion(u.MJy / u.sr, self.wave, area)
        flux, error = (v.to_value(FLUX_DENSITY) for v in (self.flux, self.error))
        flags = np.where(self.good, 0, UNUSABLE).astype(np.uint32)
        header = self.wcs.celestial.to_header()
        cards, cells = bins.to_axis(self.edges.to_value(u.um).astype(float))
        header.update({"WCSAXES": 3, **cards, "PIXAR_SR": area.value})
        units = {"BUNIT": "MJy/sr", "PIXAR_A2": area.to_value(u.arcsec**2)}
        header.update(units | roll_cards(self.slices))
        images = [
            fits.ImageHDU(_scaled(flux, scale), header, "SCI"),
            fits.ImageHDU(_scaled(error, scale), fits.Header(units), "ERR"),
            fits.ImageHDU(flags, name="DQ"),
            fits.ImageHDU(self.good.astype(np.float32), name="WMAP"),
        ]
        # One row; each cell an array of shape (n, 1), as the pipeline writes it.
        columns = [
            fits.Column(k, f"{v.size}D", dim=f"(1,{v.size})", array=v[None, :, None])
            for k, v in cells.items()
        ]
        table = fits.BinTableHDU.from_columns(columns, name="WCS-TABLE")
        # Long names need the word, or Astropy warns that it adds it.
        meta = {k if len(k) <= 8 else f"HIERARCH {k}": v for k, v in self.meta.items()}
        hdus = [fits.PrimaryHDU(header=fits.Header(meta)), *images]
        fits.HDUList(hdus + [table] * bool(cells)).writeto(path, overwrite=overwrite)


def _parse(hdus, path):
    """Find out the layout, and read the fields of a cube."""
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
    usable = np.ones(flux.shape, dtype=bool)
    if "DQ" in hdus:
        usable &= (hdus["DQ"].data & UNUSABLE) == 0
    if "WMAP" in hdus:
        usable &= hdus["WMAP"].data != 0
    data = _fields((flux, error), units, _edges(hdus, path), usable, path, area)
    data |= {"wcs": wcs, "slices": find_slices(hdus)}
    return data | {"pixel_scale": np.sqrt(area).to(u.arcsec)}


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
        _scaled(values, _conversion(unit, wave, area, path)) << FLUX_DENSITY
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


def _conversion(unit, wave, area, path="the cube"):
    """Factor to the internal unit, (wave), with the area for a surface brightness."""
    density = u.spectral_density(wave)
    try:
        value = np.ones(len(wave)) * u.Unit(unit)
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


def _scaled(data, factor):
    """Scale each plane in the precision of the data."""
    scaled = _native(data)
    scaled *= factor[:, None, None].astype(scaled.dtype)
    return scaled


def _pixel_area(header, wcs, path):
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
    return bins.from_axis(header, cells, str(path)) * scale << u.um

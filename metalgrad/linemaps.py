"""The other door: line fluxes that somebody else has measured, as tables or maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Column, Table
from astropy.wcs import WCS
from jaxtyping import Float, Int

from metalgrad import apertures, columns, recipes


@dataclass(frozen=True, eq=False, repr=False)
class LineMaps:
    """Line fluxes of the spaxels of one galaxy.

    No spaxel is left out for its S/N, and negative fluxes are kept: a faint line's
    likelihood is what carries its upper limit.

    Parameters
    ----------
    lines : tuple of str
    flux : array, (spaxel, line)
        Flux [``flux_unit``]; 0 where the line was not measured.
    error : array, (spaxel, line)
        Its standard deviation; inf where the line was not measured.
    position : array, (spaxel, 2)
        Coordinates in the plane of the disc, in ``radius_unit``. Where only radii are
        known all spaxels lie on the major axis, and only radial models make sense.
    radius_unit : str
        "kpc", "arcsec", or "R_e" for multiples of the effective radius.
    flux_unit : str
        Empty where fluxes are relative, for what was read had no units.
    index : array of int, (spaxel, 2), or None
        Row and column (y, x) of each spaxel, where known.
    shape : (int, int) or None
        Rows and columns of the map, where known.
    header : str
        FITS cards of the celestial WCS, one a line; empty if there is none.
    target : str
        Name of the galaxy.
    dropped : int
        Spaxels without a position, or without any line measured.
    effective_radius : float or None
        Half-light radius [kpc].
    """

    lines: tuple[str, ...]
    flux: Float[np.ndarray, "spaxel line"]
    error: Float[np.ndarray, "spaxel line"]
    position: Float[np.ndarray, "spaxel 2"]
    radius_unit: str
    flux_unit: str = str(columns.LINE_FLUX)
    index: Int[np.ndarray, "spaxel 2"] | None = None
    shape: tuple[int, int] | None = None
    header: str = ""
    target: str = ""
    dropped: int = 0
    effective_radius: float | None = None

    def __repr__(self) -> str:
        """Say what they are, and not every number."""
        unit = self.flux_unit or "no unit"
        return (
            f"<LineMaps: {len(self)} spaxels of {self.target or 'a galaxy'}, "
            f"{', '.join(self.lines)} [{unit}], radii in {self.radius_unit}>"
        )

    def __len__(self) -> int:
        """Count the spaxels."""
        return len(self.flux)

    @property
    def radius(self) -> Float[np.ndarray, " spaxel"]:
        """Radius in the plane of the disc [``radius_unit``]."""
        return np.hypot(self.position[:, 0], self.position[:, 1])

    @classmethod
    def from_table(
        cls,
        table,
        lines: Sequence[str] | None = None,
        target=None,
        radius: str | None = "radius",
    ) -> "LineMaps":
        """Read a table with one row per spaxel (or annulus, or H II region).

        ===================  ======================================================
        a flux per line      its name here, or as in CALIFA, Pipe3D or MaNGA:
                             ``Halpha``, ``flux_[OIII]5007``, ``H_beta``
        its error            the same after ``e_`` or ``err_``, or before ``_err``
                             or ``_error``
        ``radius``           radius in the disc, as a length, an angle or (without
                             a unit) in effective radii; or
        ``ra``, ``dec``      sky coordinates [deg], with a ``target``; or
        ``x``, ``y``         coordinates in the plane of the disc, as ``radius``
        ``iy``, ``ix``       row and column from 0, if wanted
        ===================  ======================================================

        An angle becomes kpc if there is a ``target``. Doublets with a column for each
        member are added up. A flux or an error that is not finite, or masked, says that
        the line was not measured.

        Parameters
        ----------
        table : Table, DataFrame, mapping, structured array or path
            The table, or a file of it (ECSV, FITS, or CSV).
        lines : sequence of str or None
            Lines to take; None takes all that are found.
        target : Target or None
            The galaxy; its geometry is used, but for ``radius`` and ``masks``.
        radius : str or None
            Name of the column of radii, which goes before other positions.

        Returns
        -------
        LineMaps

        Raises
        ------
        ValueError
            If a line, its error or every position is missing, two columns give the
            same line, units are wrong or given to some columns only, an error is zero
            or negative, a row or column is no number from 0, or no spaxel is left.
        """
        table = columns.read_table(table)
        found = recipes.find(table.colnames, lines)
        names = [key for members in found.values() for pair in members for key in pair]
        fluxes, flux_unit = columns.read_fluxes(table, names)
        flux, error = recipes.add_up(found, fluxes)
        position, unit = columns.find_positions(table, target, radius)
        keep = np.isfinite(error).any(axis=1) & np.isfinite(position).all(axis=1)
        if not keep.any():
            raise ValueError(
                f"no spaxel is left of {len(keep)}, for none has a position and a line "
                "measured; check the columns, or the radius of the target"
            )
        index, shape = columns.find_index(table, keep)
        return cls(
            lines=tuple(found),
            flux=flux[keep],
            error=error[keep],
            position=position[keep],
            radius_unit=unit,
            flux_unit=flux_unit,
            index=index,
            shape=shape,
            target="" if target is None else target.name,
            effective_radius=getattr(target, "effective_radius", None),
            dropped=int(np.sum(~keep)),
        )

    @classmethod
    def from_maps(
        cls, maps: Mapping[str, tuple | str | Path], target, wcs: WCS | None = None
    ) -> "LineMaps":
        """Take the spaxels in the target's radius and outside its masks out of maps.

        Parameters
        ----------
        maps : mapping of str to (flux, error) or path
            For each line two arrays (y, x), masked or not, or Quantities; or a FITS
            file with images FLUX (or SCI, or the first) and ERR (or ERROR), in the
            units of BUNIT.
        target : Target
            The galaxy; all its geometry is used.
        wcs : WCS or None
            Celestial coordinates of the maps; None takes those of the first file.

        Returns
        -------
        LineMaps
            The fluxes, at positions in kpc.

        Raises
        ------
        ValueError
            If a line is unknown, the maps differ in shape or have no celestial WCS, the
            target has no position, one of its masks covers no spaxel, units are wrong
            or given to some maps only, an error is zero or negative, or no spaxel is
            left.
        """
        recipes.check_names(maps)
        read = {line: _read_map(given) for line, given in maps.items()}
        wcs = wcs or next((found for _, _, found in read.values() if found), None)
        shapes = sorted({np.shape(v) for *pair, _ in read.values() for v, _ in pair})
        if len(shapes) != 1 or len(shapes[0]) != 2 or wcs is None:
            raise ValueError(
                f"the maps of {', '.join(maps)} have the shapes {shapes} and "
                f"{'no' if wcs is None else 'a'} celestial WCS where one shape (y, x) "
                "and a WCS are expected; reproject them to one grid, or give wcs"
            )
        pixels = np.meshgrid(*(np.arange(size) for size in shapes[0][::-1]))
        wcs = wcs.celestial  # a cube's has wavelengths, too
        sky = SkyCoord(wcs.pixel_to_world(*pixels))
        plane, inside = apertures.cut_out(sky, target, "the maps")
        table = Table(np.argwhere(inside), names=["iy", "ix"])
        table["x"], table["y"] = (plane[inside] * u.arcsec).T
        for line, (flux, error, _) in read.items():
            for name, (values, unit) in ((line, flux), (f"{line}_err", error)):
                table[name] = Column(values[inside], unit=unit)
        header = wcs.to_header().tostring("\n", endcard=False, padding=False)
        taken = cls.from_table(table, tuple(maps), target)
        return replace(taken, shape=shapes[0], header=header)


def _read_map(given):
    """Flux and error, each as (values, unit), and the WCS that came with them."""
    if not isinstance(given, str | Path):
        return *((columns.plain(v), getattr(v, "unit", None)) for v in given), None
    with fits.open(given) as hdus:
        images = [hdu for hdu in hdus if hdu.is_image and hdu.data is not None]
        flux = [h for h in images if h.name in ("FLUX", "SCI")] or images
        error = [h for h in images if h.name in ("ERR", "ERROR")]
        if not error:
            raise ValueError(
                f"{given} has no image ERR or ERROR among {[h.name for h in hdus]}; "
                "add the errors of the fluxes to the file"
            )
        pair = [(h.data * 1.0, h.header.get("BUNIT")) for h in (flux[0], error[0])]
        wcs = WCS(flux[0].header, naxis=2).celestial
    return *pair, wcs if wcs.has_celestial else None

"""The door through which spectra come in: cubes, with their errors and masks."""

from dataclasses import dataclass, field
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from jaxtyping import Bool, Float

from metalgrad import bins
from metalgrad.files import NewFile, refuse_to_replace
from metalgrad.headers import read_whole, roll_cards
from metalgrad.layouts import FLUX_DENSITY, UNUSABLE, convert, parse, rescale


@dataclass(frozen=True, eq=False, repr=False)
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

    Raises
    ------
    ValueError
        If shapes or units are not these.
    """

    flux: Float[u.Quantity, "wave y x"]
    error: Float[u.Quantity, "wave y x"]
    edges: Float[u.Quantity, " wave+1"]
    good: Bool[np.ndarray, "wave y x"]
    wcs: WCS | None = None
    pixel_scale: u.Quantity | None = None
    meta: dict = field(default_factory=dict)
    slices: u.Quantity | None = None

    def __post_init__(self):
        """Refuse what is no cube."""
        sizes = {name: np.shape(getattr(self, name)) for name in ("error", "good")}
        sizes |= {"edges": (np.size(self.edges) - 1, *np.shape(self.flux)[1:])}
        wrong = [name for name, size in sizes.items() if size != np.shape(self.flux)]
        if np.ndim(self.flux) != 3 or wrong:
            raise ValueError(
                f"flux of shape {np.shape(self.flux)} with {', '.join(wrong) or 'it'} "
                "of another where (wave, y, x), and one edge more than planes, are "
                "expected; mend the shapes"
            )
        for name, unit in (
            ("flux", FLUX_DENSITY),
            ("error", FLUX_DENSITY),
            ("edges", u.um),
        ):
            given = getattr(getattr(self, name), "unit", None)
            if given is None or not given.is_equivalent(unit):
                raise ValueError(
                    f"{name} of a cube has the unit {given} where one like {unit} is "
                    "expected; make it a Quantity of such, or Cube.read the file, "
                    "which converts surface brightness"
                )

    def __repr__(self) -> str:
        """Say what it is, and not every number."""
        rows, columns = self.shape
        low, high = self.edges[[0, -1]].to_value(u.um)
        return (
            f"<Cube of {rows} x {columns} spaxels, {len(self.flux)} bins from "
            f"{low:.3f} to {high:.3f} µm, {self.good.mean():.1%} good>"
        )

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
            If the file is not a whole FITS file, lacks what is needed (a cube of the
            pipeline its DQ), has spaxels that are not square, or has wrong units,
            wavelengths that do not increase, negative errors, or no good voxel.
        """
        return cls(**parse(read_whole(path), path))

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
        FileExistsError
            If the file exists and ``overwrite`` is False.
        ValueError
            If the cube has no ``wcs`` or ``pixel_scale``.
        """
        refuse_to_replace(path, overwrite=overwrite)
        if self.wcs is None or self.pixel_scale is None:
            raise ValueError("no s3d without wcs and pixel_scale; set both in Cube")
        area = (self.pixel_scale**2).to(u.sr)
        factor = 1 / convert(u.MJy / u.sr, self.wave, area)
        flux, error = (v.to_value(FLUX_DENSITY) for v in (self.flux, self.error))
        flags = np.where(self.good, 0, UNUSABLE).astype(np.uint32)
        header = self.wcs.celestial.to_header()
        cards, cells = bins.to_axis(self.edges.to_value(u.um).astype(float))
        header.update({"WCSAXES": 3, **cards, "PIXAR_SR": area.value})
        units = {"BUNIT": "MJy/sr", "PIXAR_A2": area.to_value(u.arcsec**2)}
        header.update(units | roll_cards(self.slices))
        images = [
            fits.ImageHDU(rescale(flux, factor), header, "SCI"),
            fits.ImageHDU(rescale(error, factor), fits.Header(units), "ERR"),
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
        with NewFile(path) as fresh:
            fits.HDUList(hdus + [table] * bool(cells)).writeto(fresh)

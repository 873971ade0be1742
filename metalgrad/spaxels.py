"""The data of the model: selected spectra, without units.

Internal units, said once, here:

==================  ====================================================
wavelength          um, vacuum, observed
length              kpc, in the plane of the disc
line flux           1e-20 erg / s / cm2
flux density        1e-20 erg / s / cm2 / um, per spaxel
metallicity         12 + log(O/H); its gradient dex / kpc
==================  ====================================================
"""

from dataclasses import dataclass, field
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from jaxtyping import Array, Float, Int, Shaped

from metalgrad import apertures, geometry
from metalgrad.headers import angle_on_map
from metalgrad.layouts import FLUX_DENSITY
from metalgrad.lsf import LSF, prism


@dataclass(frozen=True, eq=False, repr=False)
class Spaxels:
    """Spectra of the spaxels of one galaxy, chosen by place and never by S/N.

    A cut on signal to noise would drop the spaxels whose faint lines say most about
    low metallicities; an undetected line has a likelihood like any other.

    Parameters
    ----------
    flux : array, (spaxel, pixel)
        Flux density [1e-20 erg/s/cm2/um]; 0 where the voxel is bad.
    error : array, (spaxel, pixel)
        Its standard deviation; inf where the voxel is bad.
    edges : array, (pixel + 1)
        Edges of the wavelength bins [um, vacuum, observed].
    position : array, (spaxel, 2)
        Coordinates in the plane of the disc [kpc]: along the major axis, and across
        it, deprojected.
    index : array of int, (spaxel, 2)
        Row and column (y, x) of each spaxel in the cube.
    redshift : float
        Redshift of the galaxy.
    shape : (int, int)
        Rows and columns of the cube.
    header : str
        FITS cards of the celestial WCS, one a line; empty if there is none.
    target : str
        Name of the galaxy.
    kpc_per_arcsec : float or None
        Scale, corrected for lensing.
    pixel_scale : float or None
        Side of a spaxel [arcsec].
    dropped : int
        Spaxels inside the aperture that had no good voxel.
    effective_radius : float or None
        Half-light radius [kpc].
    slice_angle : float or None
        Position angle of the IFU's slices in the frame of the map [deg], as in
        `PSF.kernel`; None if the cube does not tell it.
    lsf : LSF
        Line-spread function of the spectra; that of NIRSpec PRISM/CLEAR by default.

    Raises
    ------
    ValueError
        If a flux is not finite, or an error is not above 0.
    """

    flux: Float[np.ndarray, "spaxel pixel"]
    error: Float[np.ndarray, "spaxel pixel"]
    edges: Float[np.ndarray, " pixel+1"]
    position: Float[np.ndarray, "spaxel 2"]
    index: Int[np.ndarray, "spaxel 2"]
    redshift: float
    shape: tuple[int, int]
    header: str = ""
    target: str = ""
    kpc_per_arcsec: float | None = None
    pixel_scale: float | None = None
    dropped: int = 0
    effective_radius: float | None = None
    slice_angle: float | None = None
    lsf: LSF = field(default_factory=prism)

    def __post_init__(self):
        """Refuse numbers that are no measurement."""
        wrong = np.argwhere(~(np.isfinite(self.flux) & (self.error > 0)))
        if len(wrong):
            spaxel, pixel = wrong[0]
            raise ValueError(
                f"flux {self.flux[spaxel, pixel]:g} ± {self.error[spaxel, pixel]:g} of "
                f"spaxel {spaxel} in pixel {pixel} is no measurement ({len(wrong)} such"
                "); give flux 0 and an infinite error for what is bad"
            )

    def __repr__(self) -> str:
        """Say what they are, and not every number."""
        return (
            f"<Spaxels: {len(self)} of {self.target or 'a galaxy'} at z = "
            f"{self.redshift:g}, {self.flux.shape[1]} bins from {self.edges[0]:.3f} to "
            f"{self.edges[-1]:.3f} µm>"
        )

    def __len__(self) -> int:
        """Count the spaxels."""
        return len(self.flux)

    @property
    def radius(self) -> Float[np.ndarray, " spaxel"]:
        """Radius in the plane of the disc [kpc]."""
        return np.hypot(self.position[:, 0], self.position[:, 1])

    @classmethod
    def select(cls, cube, target, region=None, *, lsf: LSF | None = None) -> "Spaxels":
        """Take the spaxels of one galaxy out of a cube.

        A spaxel is taken if its centre lies within the target's radius (in the plane of
        the disc, so an ellipse on the sky), outside the target's masks, and inside
        ``region``; and if it has a good voxel. A cube of one spaxel without sky
        coordinates, a spectrum, is taken as it is, at the centre of the galaxy.

        Parameters
        ----------
        cube : Cube
            The data.
        target : Target
            The galaxy; its ``position``, ``redshift``, ``kpc_per_arcsec``, ``radius``
            [arcsec], ``axis_ratio``, ``position_angle`` [deg] and ``masks`` are used.
        region : region, path or None
            A region of the ``regions`` package (on the sky or in pixels), or a file of
            them in DS9's format: the union of those included, less those excluded.
        lsf : LSF, optional
            Line-spread function of the cube, such as ``metalgrad.lsf.constant(2700)``;
            that of NIRSpec PRISM/CLEAR by default, if the cube says nothing else.

        Returns
        -------
        Spaxels
            The data in internal units, over the whole wavelength range of the cube.

        Raises
        ------
        ValueError
            If the cube has no sky coordinates, the target no position or radius, or
            lies outside the cube; if a mask or the region covers no spaxel; if no
            spaxel is left; or if the cube is of another grating or instrument, and
            ``lsf`` is not given.
        """
        _check_kinds(cube, target)
        lsf = lsf or find_lsf(cube)
        if cube.wcs is None and cube.shape == (1, 1):
            plane, inside = np.zeros((1, 1, 2)), np.ones((1, 1), dtype=bool)
            header, angle = "", None
        else:
            sky = apertures.find_sky(cube, target)
            plane, inside = apertures.cut_out(sky, target)
            inside &= apertures.within(region, cube.wcs, cube.shape)
            header = cube.wcs.to_header().tostring("\n", endcard=False, padding=False)
            angle = angle_on_map(cube.slices, cube.wcs, target.centre)
        alive = cube.good.any(axis=0)
        chosen = inside & alive
        if not chosen.any():
            raise ValueError(
                f"no spaxel of {target.name} is left: {inside.sum()} lie in aperture "
                "and region, and none has a good voxel; widen the radius or the "
                "region, or check the cube's DQ"
            )
        good = cube.good[:, chosen].T
        flux, error = (
            np.where(good, value[:, chosen].to_value(FLUX_DENSITY).T, bad).astype(float)
            for value, bad in ((cube.flux, 0.0), (cube.error, np.inf))
        )
        scale = cube.pixel_scale
        return cls(
            flux=flux,
            error=error,
            edges=cube.edges.to_value(u.um).astype(float),
            position=plane[chosen] * target.kpc_per_arcsec,
            index=np.argwhere(chosen),
            redshift=float(target.redshift),
            shape=cube.shape,
            header=header,
            target=target.name,
            kpc_per_arcsec=float(target.kpc_per_arcsec),
            pixel_scale=None if scale is None else float(scale.to_value(u.arcsec)),
            dropped=int(np.sum(inside & ~alive)),
            effective_radius=getattr(target, "effective_radius", None),
            slice_angle=angle,
            lsf=lsf,
        )

    def to_map(
        self, values: Shaped[Array | np.ndarray, " value"]
    ) -> Float[np.ndarray, "y x"]:
        """Lay one number per spaxel out on the sky, NaN elsewhere.

        Parameters
        ----------
        values : array, (spaxel)
            Any quantity.

        Returns
        -------
        array, (y, x)
            Its map, of the cube's rows and columns.

        Raises
        ------
        ValueError
            If there is not one value per spaxel.
        """
        return geometry.to_map(values, self.index, self.shape)

    def map_hdu(
        self, values: Shaped[Array | np.ndarray, " value"], name: str, unit: str = ""
    ) -> fits.ImageHDU:
        """Make a FITS extension of ``to_map(values)``, with sky coordinates.

        Parameters
        ----------
        values : array, (spaxel)
            Any quantity.
        name : str
            Name of the extension.
        unit : str
            Its BUNIT.

        Returns
        -------
        ImageHDU
            The map.

        Raises
        ------
        ValueError
            If there is not one value per spaxel.
        """
        header = fits.Header.fromstring(self.header, sep="\n")
        header["BUNIT"] = unit
        return fits.ImageHDU(self.to_map(values), header, name)


def _check_kinds(cube, target):
    """Refuse a file, or the name of a target, for what it holds."""
    for what, value, cure in (
        ("cube", cube, "read it with metalgrad.Cube.read"),
        ("target", target, "load it with metalgrad.load_target, or make a Target"),
    ):
        if isinstance(value, str | Path):
            raise TypeError(f"the {what} is {value!r}, a text or a path; {cure}")


def find_lsf(cube) -> LSF:
    """Return the LSF of NIRSpec PRISM/CLEAR, unless the cube is of something else.

    Raises
    ------
    ValueError
        If its header names another instrument or grating.
    """
    for key, expected in (("INSTRUME", "NIRSPEC"), ("GRATING", "PRISM")):
        if str(cube.meta.get(key, expected)).strip().upper() != expected:
            raise ValueError(
                f"{key} of the cube is {cube.meta[key]} where {expected} is expected, "
                "whose resolution is known here; give lsf=metalgrad.lsf.constant(R), "
                "or an LSF with a table (--resolution R)"
            )
    return prism()

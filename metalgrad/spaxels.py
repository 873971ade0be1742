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

from dataclasses import dataclass
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from jaxtyping import Array, Float, Int, Shaped

from metalgrad import geometry
from metalgrad.headers import angle_on_map

FLUX_DENSITY = u.Unit(1e-20 * u.erg / u.s / u.cm**2 / u.um)


@dataclass(frozen=True, eq=False)
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

    def __len__(self) -> int:
        """Count the spaxels."""
        return len(self.flux)

    @property
    def radius(self) -> Float[np.ndarray, " spaxel"]:
        """Radius in the plane of the disc [kpc]."""
        return np.hypot(self.position[:, 0], self.position[:, 1])

    @classmethod
    def select(cls, cube, target, region=None) -> "Spaxels":
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

        Returns
        -------
        Spaxels
            The data in internal units, over the whole wavelength range of the cube.

        Raises
        ------
        ValueError
            If the cube has no sky coordinates, the target no position or radius, or
            lies outside the cube; if a mask or the region covers no spaxel; or if no
            spaxel is left.
        """
        if cube.wcs is None and cube.shape == (1, 1):
            plane, inside = np.zeros((1, 1, 2)), np.ones((1, 1), dtype=bool)
            header, angle = "", None
        else:
            sky = _sky(cube, target)
            plane, inside = _aperture(sky, target)
            inside &= _within(region, cube.wcs, cube.shape)
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


def _sky(cube, target):
    """Sky coordinates of the spaxels' centres, (y, x)."""
    if cube.wcs is None:
        raise ValueError(
            f"the cube of {target.name} has no celestial WCS to find the galaxy by; "
            "add one to the header of SCI"
        )
    rows, columns = cube.shape
    x, y = cube.wcs.world_to_pixel(target.centre)
    # Written so that NaN, a position behind the sky's tangent plane, is outside too.
    if not (-0.5 <= x <= columns - 0.5 and -0.5 <= y <= rows - 0.5):
        corners = cube.wcs.calc_footprint(axes=(columns, rows))
        footprint = ", ".join(f"({ra:.5f}, {dec:.5f})" for ra, dec in corners)
        raise ValueError(
            f"target {target.name} at {target.position.to_string()} deg lies outside "
            f"the cube, whose corners are at {footprint} deg; check the position or WCS"
        )
    return cube.wcs.pixel_to_world(*np.meshgrid(np.arange(columns), np.arange(rows)))


def _aperture(sky, target):
    """Disc-plane coordinates [arcsec], (y, x, 2), and which spaxels to take, (y, x)."""
    centre = target.position.icrs
    offset = geometry.sky_offset(
        sky.icrs.ra.deg, sky.icrs.dec.deg, (centre.ra.deg, centre.dec.deg)
    )
    plane = geometry.deproject(offset, target.axis_ratio, target.position_angle)
    inside = np.hypot(plane[..., 0], plane[..., 1]) <= target.radius
    for where, radius in target.masks:
        masked = sky.separation(where).arcsec <= radius
        if not masked.any():
            raise ValueError(
                f"the mask of {target.name} at {where.to_string()} deg with radius "
                f"{radius} arcsec covers no spaxel of the cube; check both"
            )
        inside &= ~masked
    return plane, inside


def _within(region, wcs, shape):
    """Which spaxels have their centre inside the region, (y, x)."""
    if region is None:
        return np.ones(shape, dtype=bool)
    from regions import PixCoord, RegionMeta, Regions, SkyRegion  # loads matplotlib

    named = isinstance(region, str | Path)
    parts = Regions.read(region, format="ds9") if named else [region]
    centres = PixCoord(*np.meshgrid(np.arange(shape[1]), np.arange(shape[0])))
    said = f"the region {region if named else type(region).__name__}"
    covered = {1: [], 0: []}
    for part in parts:
        try:
            pixels = part.to_pixel(wcs) if isinstance(part, SkyRegion) else part.copy()
        except ValueError as error:  # too far off for the map's projection
            raise ValueError(
                f"{said} lies far from the cube ({error}); check its coordinates"
            ) from error
        # Without it, old versions of regions turn an excluded region inside out.
        pixels.meta = RegionMeta()
        covered[int(part.meta.get("include", 1))].append(pixels.contains(centres))
    everywhere = [np.ones(shape, dtype=bool)]
    inside = np.any(covered[1] or everywhere, axis=0)
    inside &= ~np.any(covered[0], axis=0) if covered[0] else True
    if not inside.any():
        raise ValueError(f"{said} covers no spaxel of the cube; check its coordinates")
    return inside

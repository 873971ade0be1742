"""Which spaxels of a map are a galaxy's: by place, and never by S/N."""

from pathlib import Path

import numpy as np

from metalgrad.columns import find_plane


def find_sky(cube, target):
    """Sky coordinates of the spaxels' centres, (y, x).

    Raises
    ------
    ValueError
        If the cube has no sky coordinates, or the target lies outside.
    """
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


def cut_out(sky, target, what="the cube"):
    """Disc-plane coordinates [arcsec], (y, x, 2), and which spaxels to take, (y, x).

    Raises
    ------
    ValueError
        If the target has no position, or one of its masks covers no spaxel.
    """
    plane = find_plane(sky.icrs.ra.deg, sky.icrs.dec.deg, target)
    inside = np.hypot(plane[..., 0], plane[..., 1]) <= target.radius
    for where, radius in target.masks:
        masked = sky.separation(where).arcsec <= radius
        if not masked.any():
            raise ValueError(
                f"the mask of {target.name} at {where.to_string()} deg with radius "
                f"{radius} arcsec covers no spaxel of {what}; check both"
            )
        inside &= ~masked
    return plane, inside


def within(region, wcs, shape) -> np.ndarray:
    """Which spaxels have their centre inside the region, (y, x).

    Raises
    ------
    ValueError
        If it covers none.
    """
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

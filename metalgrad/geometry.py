"""Where a spaxel lies: sky to disc, disc to radius, spaxel back to map."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

ARCSEC_PER_RADIAN = 180 * 3600 / np.pi


def sky_offset(
    ra: Float[np.ndarray, "*shape"],
    dec: Float[np.ndarray, "*shape"],
    centre: tuple[float, float],
) -> Float[np.ndarray, "*shape 2"]:
    """Offsets on the sky, in the plane that touches it at the centre.

    The gnomonic projection of Calabretta & Greisen (2002, section 5.1.3).

    Parameters
    ----------
    ra, dec : array, (*shape)
        Right ascension and declination [deg].
    centre : (float, float)
        Right ascension and declination of the centre [deg].

    Returns
    -------
    array, (*shape, 2)
        Offsets to the east and to the north [arcsec].
    """
    alpha, delta, delta_0 = np.deg2rad([ra - centre[0], dec, dec * 0 + centre[1]])
    # The point on the unit sphere, seen from the centre: to the east, to the north
    # (delta_0 turned to the equator), and along the line of sight.
    east = np.cos(delta) * np.sin(alpha)
    pole, equator = np.sin(delta), np.cos(delta) * np.cos(alpha)
    north = pole * np.cos(delta_0) - equator * np.sin(delta_0)
    depth = pole * np.sin(delta_0) + equator * np.cos(delta_0)
    return np.stack([east / depth, north / depth], axis=-1) * ARCSEC_PER_RADIAN


def deproject(
    offset: Float[Array | np.ndarray, "*shape 2"],
    axis_ratio: float = 1.0,
    position_angle: float = 0.0,
) -> Float[Array | np.ndarray, "*shape 2"]:
    """Turn sky offsets into coordinates in the plane of a thin disc.

    NumPy in, NumPy out, and in the same precision; likewise for JAX.

    Parameters
    ----------
    offset : array, (*shape, 2)
        Offsets to the east and to the north, any unit of length or angle.
    axis_ratio : float
        Apparent minor over major axis of the disc, in (0, 1]: the cosine of its
        inclination.
    position_angle : float
        Position angle of the major axis, from north through east [deg].

    Returns
    -------
    array, (*shape, 2)
        Coordinates along the major axis and across it (towards the position angle
        plus 90 deg, stretched by one over ``axis_ratio``), in the unit of ``offset``.

    Raises
    ------
    ValueError
        If the axis ratio is outside (0, 1].
    """
    if not 0 < axis_ratio <= 1:
        raise ValueError(
            f"axis_ratio is {axis_ratio}, but minor over major axis lies in (0, 1]; "
            "swap the axes and turn position_angle by 90 deg if it is above 1"
        )
    angle = np.deg2rad(position_angle)
    sine, cosine = np.sin(angle), np.cos(angle)
    along, across = (sine, cosine), (cosine / axis_ratio, -sine / axis_ratio)
    return offset @ np.array([along, across], dtype=offset.dtype).T


def radius(
    position: Float[Array | np.ndarray, "*shape 2"],
) -> Float[Array, "*shape"]:
    """Distance from the centre, with a gradient that is zero (not NaN) there.

    Parameters
    ----------
    position : array, (*shape, 2)
        Coordinates in the plane of the disc, any unit.

    Returns
    -------
    array, (*shape)
        Radius, in the unit of ``position``.
    """
    square = jnp.sum(jnp.square(position), axis=-1)
    # The square root never sees zero, so neither does its derivative.
    safe = jnp.where(square > 0, square, 1.0)
    return jnp.where(square > 0, jnp.sqrt(safe), 0.0)


def to_map(
    values: Shaped[Array | np.ndarray, " value"],
    index: Int[np.ndarray, "spaxel 2"],
    shape: tuple[int, int],
) -> Float[np.ndarray, "y x"]:
    """Lay one number per spaxel out on the sky.

    Parameters
    ----------
    values : array, (spaxel)
        Any quantity.
    index : array of int, (spaxel, 2)
        Row and column (y, x) of each spaxel.
    shape : (int, int)
        Rows and columns of the map.

    Returns
    -------
    array, (y, x)
        The values, and NaN where there is no spaxel.

    Raises
    ------
    ValueError
        If there is not one value per spaxel.
    """
    if len(values) != len(index):
        raise ValueError(
            f"values has {len(values)} entries where {len(index)} spaxels expect one "
            "each; pass one value per spaxel"
        )
    laid_out = np.full(shape, np.nan)
    laid_out[index[:, 0], index[:, 1]] = np.asarray(values)
    return laid_out

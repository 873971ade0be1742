"""FITS files that are whole, and what their headers say of the IFU's slices.

The PSF is wider along the slices than across.  They lie along the y axis of the
aperture's own frame (in SIAF, NRS_IFU_SLICE00 to 29 to 0.01 deg), whose position angle
is that of V3, ``ROLL_REF``, and ``V3I_YANG`` more.
"""

import gzip
import zlib
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits

ROLL = "ROLL_REF", "V3I_YANG"
BLOCK = 2880  # bytes, of which a FITS file is a multiple (FITS standard 4.0, 3.1)
V3_TO_Y = 138.97  # deg: V3I_YANG of NRS_FULL_IFU in SIAF (PRDOPSSOC-075)
ALIKE = 5.0  # deg, ours: of exposures that lie farther apart the PSF is a mixture


def read_whole(path) -> fits.HDUList:
    """Read a whole FITS file, and refuse one that ends within an extension.

    What ends between two of them cannot be told from one that never had more.

    Parameters
    ----------
    path : path
        It may be gzipped.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no FITS file, or a part of one.
    """
    raw = Path(path).read_bytes()
    try:
        raw = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    except (EOFError, OSError, zlib.error):
        raw = b""
    broken = f"{path} is no FITS file, or is truncated; fetch it again"
    if not raw.startswith(b"SIMPLE") or len(raw) % BLOCK:
        raise ValueError(broken)
    hdus = fits.HDUList.fromstring(raw)
    try:
        for hdu in hdus:
            hdu.data  # noqa: B018  it is read when it is asked for
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise ValueError(broken) from error
    return hdus


def find_slices(hdus) -> u.Quantity | None:
    """Read the position angle on the sky of the slices' long axis.

    Parameters
    ----------
    hdus : HDUList
        A cube, whose table of exposures (``HDRTAB``) or header of SCI tells the roll.

    Returns
    -------
    Quantity or None
        Angle from north through east, from 0 to 180 deg; None if it is not told, or
        exposures were taken at several.
    """
    if hdus[0].header.get("INSTRUME", "NIRSPEC") != "NIRSPEC":
        return None
    sources = [hdus["HDRTAB"].data] if "HDRTAB" in hdus else []
    for told in (*sources, hdus["SCI"].header):
        try:
            roll, turn = (np.ravel(told[k]).astype(float) for k in ROLL)
            break
        except (KeyError, TypeError, ValueError):  # not there, or no numbers
            continue
    else:
        return None
    angle = roll + turn
    # An axis, not a direction: twice its angle goes round once.
    middle = np.angle(np.mean(np.exp(2j * np.radians(angle))), deg=True) / 2
    apart = (angle - middle + 90) % 180 - 90
    if not np.all(np.abs(apart) < ALIKE):  # nor are NaNs alike
        return None
    return float(middle % 180) * u.deg


def roll_cards(slices) -> dict[str, float]:
    """Return the cards that `find_slices` reads, for the header of SCI."""
    if slices is None:
        return {}
    roll = (slices.to_value(u.deg) - V3_TO_Y) % 360
    return dict(zip(ROLL, (roll, V3_TO_Y), strict=True))


def angle_on_map(slices, wcs, centre) -> float | None:
    """Turn a position angle on the sky into one in the frame of a map.

    Parameters
    ----------
    slices : Quantity or None
        From north through east.
    wcs : WCS
        Of the map.
    centre : SkyCoord
        Where.

    Returns
    -------
    float or None
        From +y (up) counter-clockwise, from 0 to 180, as in `PSF.kernel` [deg].
    """
    if slices is None:
        return None
    ends = [centre, centre.directional_offset_by(slices, 1 * u.arcsec)]
    (x0, y0), (x1, y1) = (wcs.world_to_pixel(end) for end in ends)
    return float(np.degrees(np.arctan2(x0 - x1, y1 - y0)) % 180)

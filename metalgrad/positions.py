"""Positions on the sky, as people and headers write them."""

import astropy.units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

SEXAGESIMAL = 6  # numbers of a position in hours, degrees, minutes and seconds


def read_position(text: str, what: str = "the position") -> SkyCoord:
    """Read "RA DEC", in degrees or sexagesimal.

    Parameters
    ----------
    text : str
        Such as "150.197 2.479", "10:00:47.33 +02:28:43.14" or "10 00 47.33 +02 28 43".
    what : str
        To name in the error.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    sexagesimal = ":" in text or "h" in text or len(text.split()) == SEXAGESIMAL
    try:
        return SkyCoord(text, unit=(u.hourangle if sexagesimal else u.deg, u.deg))
    except ValueError as error:
        raise ValueError(
            f'{what} {text!r} cannot be read; give "RA DEC" in degrees or as '
            '"10:00:47.33 +02:28:43.14"'
        ) from error


def read_wcs(cards: str) -> WCS:
    """Read celestial coordinates from FITS cards, one a line."""
    return WCS(fits.Header.fromstring(cards, sep="\n")).celestial

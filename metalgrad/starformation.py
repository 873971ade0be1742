"""Star formation rates from Balmer lines (Kennicutt & Evans 2012), with lensing.

As in Sect. 2.2.1 of Venturi et al. (2024): the line is corrected for dust with the
curve of Calzetti et al. (2000), Hβ is turned into Hα with the ratio of case B, and the
luminosity is that of Planck18, over the magnification.
"""

import astropy.units as u
import numpy as np
from astropy.cosmology import Planck18

from metalgrad import dust, lines

__all__ = ["star_formation_error", "star_formation_rate"]

# Hα luminosity [erg/s] of 1 solar mass a year, its logarithm: Kennicutt & Evans (2012),
# as in Table A.1 of Boquien et al. (2014, A&A 571, A72); Murphy et al. (2011), Hao et
# al. (2011).
_LOG_LUMINOSITY = 41.27
# Venturi et al. (2024), Sect. 2.2.1: case B at 10⁴ K (Osterbrock & Ferland 2006).
_HALPHA_TO = {"Halpha": 1.0, "Hbeta": 2.87}


def star_formation_rate(
    flux: u.Quantity, *, redshift, line: str = "Halpha", ebv=0.0, magnification=1.0
) -> u.Quantity:
    """Turn the flux of Hα or Hβ into a star formation rate.

    The rate is proportional to the flux: upper limits and draws may be given, too.
    Arrays are broadcast.

    Parameters
    ----------
    flux : Quantity
        Observed flux of the line, [erg / (s cm²)] or alike: not a flux density.
    redshift : array_like
        Above 0; the distance is that of Planck18.
    line : str
        ``"Halpha"``, or ``"Hbeta"`` where Hα cannot be seen.
    ebv : array_like
        E(B-V) [mag], not negative; that of `metalgrad.classical.correct_dust`, say.
    magnification : array_like
        Of the lens, an area, above 0 (`Target.magnification`).

    Returns
    -------
    Quantity
        Star formation rate [solMass / yr].

    Raises
    ------
    ValueError
        If the line is another, or a number is out of its range.
    astropy.units.UnitConversionError
        If the flux has another unit, or none.

    Examples
    --------
    >>> import astropy.units as u
    >>> flux = 36e-20 * u.erg / u.s / u.cm**2  # YD4 of Venturi et al. (2024)
    >>> rate = star_formation_rate(flux, redshift=7.879, line="Hbeta", magnification=2)
    >>> print(f"{rate:.1f}")
    2.2 solMass / yr
    """
    if line not in _HALPHA_TO:
        raise ValueError(
            f"a star formation rate is made of one of {', '.join(_HALPHA_TO)}, not of "
            f"{line!r}; convert the flux to one of these"
        )
    if u.get_physical_type(getattr(flux, "unit", u.one)) != "energy flux":
        raise u.UnitConversionError(
            f"flux has the unit {getattr(flux, 'unit', '(none)')}; give the flux of a "
            "line as a Quantity, in erg / (s cm2) or alike"
        )
    _check("redshift", redshift)
    _check("magnification", magnification)
    if np.any(np.asarray(ebv) < 0):
        raise ValueError(
            f"ebv is {np.min(ebv):g}; dust does not brighten: give 0 mag or more"
        )
    distance = Planck18.luminosity_distance(np.asarray(redshift, float))
    gain = _HALPHA_TO[line] * 10 ** (0.4 * _extinction(line) * np.asarray(ebv))
    luminosity = 4 * np.pi * distance**2 * flux * gain / magnification
    return luminosity.to_value(u.erg / u.s) / 10**_LOG_LUMINOSITY * u.Msun / u.yr


def star_formation_error(
    flux: u.Quantity,
    error: u.Quantity,
    *,
    ebv_error=0.0,
    correlation=0.0,
    magnification=1.0,
    magnification_error=0.0,
    line: str = "Halpha",
    **others,
) -> u.Quantity:
    """Return the standard error of a star formation rate, to first order.

    Not of the calibration, nor of the case B ratio. Where the error of E(B-V) is large
    the rate is skewed: give draws of flux and E(B-V) to `star_formation_rate`.

    Parameters
    ----------
    flux, error : Quantity
        Of the line, and its standard error.
    ebv_error : array_like
        Standard error of E(B-V) [mag].
    correlation : array_like
        Between flux and E(B-V), from -1 to 1: not zero where the same line told both.
    magnification, magnification_error : array_like
        Of the lens, and its standard error.
    line, **others
        As in `star_formation_rate`.

    Returns
    -------
    Quantity
        Standard error [solMass / yr].

    Raises
    ------
    ValueError
        As in `star_formation_rate`, and if the correlation is out of its range.
    """
    if np.any(np.abs(correlation) > 1):
        raise ValueError(
            f"correlation is {correlation}; give a coefficient between -1 and 1"
        )
    rate = star_formation_rate(flux, line=line, magnification=magnification, **others)
    own = (error / flux).to_value(u.one)
    dusty = 0.4 * np.log(10) * _extinction(line) * np.asarray(ebv_error)
    lens = np.asarray(magnification_error) / np.asarray(magnification)
    variance = own**2 + dusty**2 + 2 * correlation * own * dusty + lens**2
    return np.abs(rate) * np.sqrt(variance)


def _extinction(line):
    """Attenuation at a line, k = A / E(B-V)."""
    return float(dust.calzetti(lines.catalogue()[line].wavelength))


def _check(name, values):
    values = np.asarray(values, float)
    if not np.all(np.isfinite(values) & (values > 0)):
        raise ValueError(f"{name} is {values}; give finite numbers above 0")

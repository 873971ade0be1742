"""A latent of which data tell the softplus of its sum, placed by itself.

E(B-V) cannot be negative: it is the softplus of a mean plus an amplitude times a
standard normal, and data tell it as it stands.  Well told it stays where it is, however
its mean and amplitude move; a linear map of the normal, true at one point, would take
it elsewhere.
"""

import jax.numpy as jnp
from jax.nn import sigmoid, softplus

from metalgrad import small

STEPS = 3  # of Gauss and Newton's, towards the mode (ours)
LONGEST = 2.0  # change of the sum in one of them (ours)
FAINT = 1e-8  # information that is as good as none


def rest(mean, amplitude, precision, toward):
    """Find where a latent rests, and how its softplus changes there.

    That is near the mode of ``exp(-z²/2 - precision v²/2 + toward v)``, with ``v`` the
    softplus of ``mean + amplitude z``.

    Parameters
    ----------
    mean, amplitude : array, (spaxel,)
        Of the latent's sum.
    precision, toward : array, (spaxel,)
        Of the softplus: of what data tell, and times the value they tell.

    Returns
    -------
    z, value, slope : array, (spaxel,)
    """
    z = _guess(mean, amplitude, precision, toward)
    for _ in range(STEPS):
        value, slope = _see(mean, amplitude, z)
        step = (z + (precision * value - toward) * slope) / (1 + precision * slope**2)
        z = small.once(z - step / jnp.sqrt(1 + (amplitude * step / LONGEST) ** 2))
    return z, *_see(mean, amplitude, z)


def _see(mean, amplitude, z):
    total = mean + amplitude * z
    return softplus(total), amplitude * sigmoid(total)


def _guess(mean, amplitude, precision, toward):
    """Begin where the sum would be what data tell, so far as they tell it."""
    sd = (precision + FAINT) ** -0.5
    far = jnp.abs(toward * sd) + jnp.hypot(1.0, toward * sd)
    told = sd * jnp.where(toward > 0, far, 1 / far) / 2  # what is told, made positive
    away = told + jnp.log(-jnp.expm1(-told)) - mean
    weight = precision * sigmoid(mean) ** 2
    return weight * amplitude * away / (1 + weight * amplitude**2)


def place(precision, toward, mean, amplitude, still):
    """Place the latent, by what data tell of it when those after it are integrated out.

    Parameters
    ----------
    precision, toward : array, (spaxel,)
        As of `rest`.
    mean, amplitude, still : array, (spaxel,)

    Returns
    -------
    z, value : array, (spaxel,)
    log_volume : array, (spaxel,)
    """
    middle, _, slope = rest(mean, amplitude, precision, toward)
    width = small.once(1 + precision * slope**2)
    z = small.once(middle + still / jnp.sqrt(width))
    return z, _see(mean, amplitude, z)[0], -0.5 * jnp.log(width)

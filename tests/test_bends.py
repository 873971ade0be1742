"""A latent seen through a softplus: against minimisers of SciPy, and by quadrature."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize, stats

from metalgrad import bends, dust

pytestmark = pytest.mark.usefixtures("double_precision")

MEDIANS = [0.003, 0.1, 0.4, 2.0]
SCATTERS = [0.0, 0.05, 0.5, -1.0, 1.5]


def value(mean, amplitude, z):
    return np.logaddexp(0.0, mean + amplitude * z)


def cost(z, mean, amplitude, precision, told):
    gap = value(mean, amplitude, z) - told
    return 0.5 * z**2 + 0.5 * precision * gap**2


@pytest.mark.parametrize("median", MEDIANS)
@pytest.mark.parametrize("scatter", SCATTERS)
@pytest.mark.parametrize("error", [0.003, 0.03, 0.3, 30.0])
def test_it_rests_near_the_mode(median, scatter, error):
    """Well within the posterior, so that steps from there are as from the mode."""
    mean, steep = map(float, dust.bend(median))
    amplitude = steep * scatter
    for departure in (-2.0, -0.5, 0.0, 1.0, 2.5):
        told = value(mean, amplitude, departure) + 0.7 * error
        z, seen, slope = bends.rest(
            *map(jnp.array, (mean, amplitude, error**-2, told * error**-2))
        )
        grid = np.linspace(-8, 8, 20001)
        start = grid[np.argmin(cost(grid, mean, amplitude, error**-2, told))]
        best = optimize.minimize_scalar(
            cost, (start - 0.01, start, start + 0.01),
            args=(mean, amplitude, error**-2, told),
        ).x  # fmt: skip
        width = (1 + float(slope) ** 2 / error**2) ** -0.5
        assert abs(float(z) - best) < width
        assert float(seen) == pytest.approx(value(mean, amplitude, float(z)))


@pytest.mark.parametrize("error", [0.01, 0.1, 1.0])
def test_what_is_told_stays_where_it_is(error):
    """Median and scatter of the galaxy move; E(B-V) of a place does not."""
    precision, found = jnp.array([error**-2]), []
    for median, scatter in ((0.1, 1.4), (0.3, 0.6), (0.8, 1.0)):
        mean, steep = map(float, dust.bend(median))
        told = [jnp.array([mean]), jnp.array([steep * scatter])]
        one = bends.place(precision, 0.5 * precision, *told, jnp.zeros(1))
        found.append(float(one[1][0]))
    assert np.ptp(found) < 1.5 * error


def test_the_volume_makes_the_density_exact():
    """Of one latent: its normal times the data's, both ways round."""
    mean, steep = map(float, dust.bend(0.2))
    amplitude, precision, told = 0.9 * steep, 40.0, 0.45

    def moved(y):
        one = [jnp.array([v]) for v in (mean, amplitude, y)]
        known = jnp.array([precision]), jnp.array([precision * told])
        z, _, volume = bends.place(*known, *one)
        return float(z[0]), float(volume[0])

    def density(z):
        gap = value(mean, amplitude, z) - told
        return stats.norm.pdf(z) * np.exp(-0.5 * precision * gap**2)

    def pushed(y):
        z, volume = moved(y)
        return density(z) * np.exp(volume)

    whole = integrate.quad(density, -8, 8)[0]
    assert integrate.quad(pushed, -40, 40, limit=400)[0] == pytest.approx(
        whole, rel=1e-6
    )


@pytest.mark.parametrize("median", [1e-4, 0.05, 0.3, 3.0])
def test_small_departures_are_of_the_logarithm(median):
    """The median is the median, and scatter what the logarithm scatters by there."""
    mean, steep = map(float, dust.bend(median))
    assert value(mean, steep, 0.0) == pytest.approx(median)
    step = 1e-5
    rise = np.log(value(mean, steep, step) / value(mean, steep, -step)) / (2 * step)
    assert rise == pytest.approx(1.0, rel=1e-6)
    if median <= 0.05:
        assert value(mean, steep, 1.5) == pytest.approx(median * np.exp(1.5), rel=0.15)

"""A climb finds the way to the mode, however bright the spaxels are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalgrad import LineMaps, load_model, modes
from metalgrad.hierarchy import split
from metalgrad.inference import prepare
from metalgrad.likelihood import from_line_maps
from metalgrad.ranks import template
from metalgrad.replicas import replicate, replicate_within
from metalgrad.starts import prior_points

pytestmark = pytest.mark.usefixtures("double_precision")

LINES = {"OII": 0.3, "NeIII": 0.1, "Hbeta": 0.2, "OIII": 1.0, "Halpha": 0.6}
SPAXELS = 40


@pytest.fixture(scope="module")
def hierarchy():
    """Of a disc whose spaxels are each on their own."""
    rng = np.random.default_rng(3)
    position = rng.normal(size=(SPAXELS, 2))
    light = 30 * np.exp(-np.hypot(*position.T))
    flux = np.outer(light, list(LINES.values()))
    maps = LineMaps(tuple(LINES), flux, np.ones_like(flux), position, "kpc")
    model = load_model("gradient-independent")
    return split(model, model.prepare(from_line_maps(maps)))


# A galaxy of the prior, and how much less its noise is than the table's: S/N of the
# brightest spaxel 1e4, 1e6 and 2e8.
BRIGHT = {"bright": (37, 1.0), "brighter": (37, 100.0), "absurd": (32, 1.0)}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "deeper"), BRIGHT.values(), ids=BRIGHT)
def test_all_starts_come_to_the_same_mode_of_bright_data(hierarchy, number, deeper):
    """χ² of a start is up to the square of the S/N; without a ladder none arrives."""
    arrays = hierarchy.data.arrays
    arrays = arrays | {"root": deeper * jnp.asarray(arrays["root"])}
    drawn = replicate(hierarchy, arrays, jax.random.key(number)).arrays
    found = []
    for key in jax.random.split(jax.random.key(1)):
        points = prior_points(hierarchy, drawn, key, modes.STARTS)
        theta, _, potential = modes.descend(hierarchy, drawn, points, key)[0]
        # An amplitude may come with either sign.
        found.append((np.where(hierarchy.is_signed, np.abs(theta), theta), potential))
    (one, height), (other, again) = found
    np.testing.assert_allclose(one, other, atol=0.05)
    assert abs(height - again) < 1.0


@pytest.mark.slow
def test_starts_are_not_all_lost_in_one_corner():
    """In a galaxy near solar, all five climbs from an S/N of 30 ended 0.4 dex below.

    So all chains did, 700 nats under the truth's mode, and R-hat saw nothing.
    """
    model = load_model("gradient-independent")
    data = prepare(model, template(model, 150, 2), None, None)
    hierarchy = split(model, data)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(2), 3), 3)
    galaxy, _ = replicate_within(hierarchy, data.arrays, keys[0], 1000.0)
    (theta, _), *_ = modes.find_branches(hierarchy, galaxy.arrays, keys[1])
    found, truth = theta[hierarchy.is_level][0], galaxy.truth["level"]
    assert abs(found - truth) < 0.1


@pytest.mark.parametrize(
    ("signal", "rungs"),
    [(0.0, 1), (10.0, 1), (14.0, 1), (16.0, 2), (1e3, 3), (1e6, 6)],
)
def test_noise_is_taken_back_by_tens(signal, rungs):
    white = np.array([[signal, 0.1 * signal], [-signal, 0.0]])
    found = modes.ladder({"white": white})
    assert len(found) == rungs
    assert found[-1] == 1.0
    assert np.all(np.divide(found[:-1], found[1:]) <= 15.0 + 1e-9)
    if rungs > 1:
        assert np.isclose(found[0] * modes.FAINT, signal)


def test_what_is_hopeless_is_dropped_and_a_branch_has_one_mode(hierarchy):
    level = np.flatnonzero(hierarchy.is_level)[0]

    def mode(metallicity, potential):
        theta = np.zeros(hierarchy.sizes[0])
        theta[level] = metallicity
        return theta, None, potential

    given = [mode(8.0, 3.0), mode(8.05, 1.0), mode(7.3, 9.0), mode(7.9, 30.0)]
    lost = mode(8.5, np.inf)
    chosen = modes.choose_live(hierarchy, [*given, lost])
    assert [m[-1] for m in chosen] == [1.0, 9.0]
    more = modes.choose_live(hierarchy, [*given, lost], hopeless=50.0)
    assert [m[-1] for m in more] == [1.0, 9.0, 30.0]
    with pytest.raises(ValueError, match="no mode of the posterior"):
        modes.choose_live(hierarchy, [lost])


def test_a_start_from_which_nothing_is_found_is_tried_again(hierarchy, monkeypatch):
    """Spaxels' starts are random: others may lie where densities are finite."""
    climb, calls = modes._climb, []

    def fail_once(hierarchy, arrays, theta, z, tolerance):
        calls.append(z)
        found = climb(hierarchy, arrays, theta, z, tolerance)
        return (*found[:2], np.nan, found[3]) if len(calls) == 1 else found

    monkeypatch.setattr(modes, "_climb", fail_once)
    start = prior_points(hierarchy, hierarchy.data.arrays, jax.random.key(0), 1)[0]
    arrays, key = hierarchy.data.arrays, jax.random.key(1)
    *_, z, potential = modes.find_mode(hierarchy, arrays, start, key=key)
    assert np.isfinite(potential)
    assert z is not None
    assert not np.array_equal(calls[0], calls[1])


def test_where_nothing_is_ever_found_it_is_said(hierarchy, monkeypatch):
    monkeypatch.setattr(modes, "_climb", lambda *a: (a[2], a[3], np.nan, np.zeros(1)))
    points = prior_points(hierarchy, hierarchy.data.arrays, jax.random.key(0), 2)
    with pytest.raises(ValueError, match="no mode of the posterior was found"):
        modes.descend(hierarchy, hierarchy.data.arrays, points, jax.random.key(1))

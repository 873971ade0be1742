"""Metallicity fields: laws that hold for every kind, and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from scipy.stats import halfnorm, kstest, lognorm, norm

from metalgrad import fields
from metalgrad.priors import parse_prior

every_kind = pytest.mark.parametrize("kind", fields.__all__)
# The first spaxel is the centre itself: there a radius has no gradient of its own.
POSITION = jnp.array([[0.0, 0.0], [0.7, -1.1], [-2.0, 0.3], [1.4, 2.9], [0.1, 0.2]])
PIVOT = jnp.array(1.3)


def trace(field, position=POSITION, seed=4, **values):
    seeded = handlers.seed(handlers.substitute(field.sample, values), seed)
    return handlers.trace(seeded).get_trace(position, PIVOT)


def sample(field, position=POSITION, seed=4, **values):
    with handlers.seed(rng_seed=seed), handlers.substitute(data=values):
        return field.sample(position, PIVOT)


@every_kind
def test_builds_without_arguments_and_gives_one_value_per_spaxel(kind):
    found = sample(getattr(fields, kind)())
    assert found.shape == (5,)
    assert np.isfinite(found).all()


@every_kind
def test_spaxels_own_sites_are_standard_normals_in_their_plate(kind):
    for site in trace(getattr(fields, kind)()).values():
        frames = [frame.name for frame in site["cond_indep_stack"]]
        if "spaxel" in frames:
            draw = jnp.linspace(-2.0, 1.1, 5).reshape(site["value"].shape)
            assert_allclose(site["fn"].log_prob(draw), norm.logpdf(draw), rtol=1e-5)


@every_kind
def test_central_is_recorded(kind):
    assert trace(getattr(fields, kind)())["central"]["type"] == "deterministic"


@every_kind
def test_gradient_is_finite_everywhere_also_at_the_centre(kind):
    field = getattr(fields, kind)()

    def total(position, values):
        return jnp.sum(sample(field, position, **values))

    sites = trace(field).items()
    values = {k: v["value"] for k, v in sites if v["type"] == "sample"}
    for gradient in jax.tree.leaves(jax.grad(total, (0, 1))(POSITION, values)):
        assert np.isfinite(gradient).all()


@every_kind
def test_prior_stays_among_metallicities(kind):
    field = getattr(fields, kind)()
    draws = np.array([sample(field, POSITION[1:], seed) for seed in range(60)])
    assert np.mean((draws > 6) & (draws < 10)) > 0.97


def test_linear_gradient_is_a_straight_line():
    values = {"level": 8.13, "slope": -0.08}
    found = sample(fields.LinearGradient(), **values)
    radius = np.hypot(*np.asarray(POSITION).T)
    assert_allclose(found, 8.13 - 0.08 * (radius - 1.3), rtol=1e-6)
    recorded = trace(fields.LinearGradient(), **values)["central"]["value"]
    assert_allclose(recorded, 8.13 + 0.08 * 1.3, rtol=1e-6)


def test_flat_is_one_level():
    found = trace(fields.Flat(), level=7.9)
    assert_allclose(sample(fields.Flat(), level=7.9), np.full(5, 7.9))
    assert_allclose(found["central"]["value"], 7.9)


@every_kind
def test_scatter_is_left_to_the_model(kind):
    """It knows what else departs from place to place; the field gives the prior."""
    field = getattr(fields, kind)()
    assert isinstance(field.scatter, dist.Distribution)
    assert not any("scatter" in name for name in trace(field))


def draw_amplitude(prior, seeds=2000):
    """Draw the returned amplitude, and every site, once per seed."""

    def one(key):
        with handlers.seed(rng_seed=key), handlers.trace() as seen:
            amplitude = fields.sample_amplitude("width", prior)
        return amplitude, {name: site["value"] for name, site in seen.items()}

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(8), seeds))


def test_a_half_normal_amplitude_has_its_law_and_either_sign():
    amplitude, sites = draw_amplitude(dist.HalfNormal(0.3))
    assert set(sites) == {"width", "width_signed"}
    assert_allclose(amplitude, sites["width_signed"])
    assert_allclose(sites["width"], np.abs(amplitude))
    assert kstest(sites["width"], halfnorm(scale=0.3).cdf).pvalue > 0.01
    assert kstest(amplitude, norm(scale=0.3).cdf).pvalue > 0.01


def test_any_other_amplitude_keeps_its_sign():
    """Only where it is exact: a mirrored log-normal would have two modes."""
    amplitude, sites = draw_amplitude(dist.LogNormal(-1.0, 0.5))
    assert set(sites) == {"width"}
    assert_allclose(amplitude, sites["width"])
    law = lognorm(0.5, scale=np.exp(-1.0))
    assert kstest(sites["width"], law.cdf).pvalue > 0.01


def test_prior_is_read_off_a_card():
    prior = parse_prior("slope", {"Normal": [0.1, 0.2]})
    assert isinstance(prior, dist.Normal)
    assert (float(prior.loc), float(prior.scale)) == pytest.approx((0.1, 0.2))


@pytest.mark.parametrize(
    "card",
    [
        {"Norml": [0.0, 1.0]},
        {"Normal": [0.0, -1.0]},
        {"Normal": [0.0, 1.0, 2.0, 3.0]},
        {"Normal": [0.0, 1.0], "Uniform": [0.0, 1.0]},
        {"Normal": 3.0},
        {},
        [0.0, 1.0],
        0.3,
    ],
    ids=str,
)
def test_what_is_no_prior_is_refused(card):
    with pytest.raises(
        ValueError, match=r"prior of slope is .*; give the name of a Num"
    ):
        parse_prior("slope", card)


def test_field_is_read_off_a_card():
    card = {"kind": "LinearGradient", "slope": {"Normal": [-0.1, 0.05]}}
    field = fields.load_field("mine", card)
    assert isinstance(field, fields.LinearGradient)
    assert float(field.slope.loc) == pytest.approx(-0.1)
    assert field.level is fields.LinearGradient().level
    assert card["kind"] == "LinearGradient"  # the card stays as it was


@pytest.mark.parametrize("kind", ["Spiral", "MetallicityField", None])
def test_unknown_kind_is_refused(kind):
    with pytest.raises(
        ValueError, match=f"model mine: field kind {kind!r} is not known"
    ):
        fields.load_field("mine", {"kind": kind})


def test_unknown_parameter_is_refused():
    with pytest.raises(ValueError, match="slop"):
        fields.load_field("mine", {"kind": "Flat", "slope": {"Normal": [0.0, 1.0]}})

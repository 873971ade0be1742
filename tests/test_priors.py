"""Priors off a card, and parameters that a card fixes."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy.stats import norm

from metalgrad.hierarchy import split
from metalgrad.likelihood import from_line_maps
from metalgrad.model import load_model
from metalgrad.priors import decenter, draw, parse_numbers, parse_prior

pytestmark = pytest.mark.usefixtures("double_precision")

LINES = ("OII", "Hbeta", "OIII", "Halpha")
COUNT = 6


@pytest.fixture(scope="module")
def data():
    """Noisy fluxes at some places; the last of them has nothing but noise."""
    rng = np.random.default_rng(1)
    bright = np.linspace(20.0, 0.0, COUNT)[:, None]
    flux = bright * [1.2, 1.0, 5.0, 2.9] + rng.normal(size=(COUNT, len(LINES)))
    maps = SimpleNamespace(
        lines=LINES,
        flux=flux,
        error=np.ones_like(flux),
        position=rng.normal(size=(COUNT, 2)),
    )
    return from_line_maps(maps)


def trace(model, data, **values):
    seeded = handlers.seed(handlers.substitute(model, values), 0)
    return handlers.trace(seeded).get_trace(data)


@pytest.mark.parametrize("number", [0.0, 1, -0.25])
def test_a_number_fixes_a_parameter(number):
    prior = parse_prior("rho", number)
    assert isinstance(prior, dist.Delta)
    assert prior.v == number


@pytest.mark.parametrize("card", [True, "0.5", [0.5], None], ids=str)
def test_what_is_neither_prior_nor_number_is_refused(card):
    with pytest.raises(
        ValueError, match=r"prior of rho is .* or a number to fix it at"
    ):
        parse_prior("rho", card)


def test_numbers_may_be_nested():
    card = {"a": [1, 2.5], "b": [[0, 1], [2, 3]]}
    found = parse_numbers("places", card)
    assert found == {"a": (1.0, 2.5), "b": ((0.0, 1.0), (2.0, 3.0))}
    with pytest.raises(ValueError, match=r"places\.b has True where a number"):
        parse_numbers("places", {"a": [1], "b": [True]})


def test_a_fixed_parameter_is_recorded_and_no_latent():
    def model():
        return draw("x", dist.Delta(0.3)), draw("y", dist.Normal())

    found = handlers.trace(handlers.seed(model, 0)).get_trace()
    assert found["x"]["type"] == "deterministic"
    assert found["y"]["type"] == "sample"
    fixed, _ = handlers.seed(model, 0)()
    assert (type(fixed), fixed) == (float, 0.3)


@pytest.mark.parametrize(("card", "rho"), [("gradient-rho0", 0), ("gradient-rho1", 1)])
def test_a_fixed_share_is_not_sampled(data, card, rho):
    model = load_model(card)
    hierarchy = split(model, model.prepare(data))
    free = split(load_model("gradient"), model.prepare(data))
    gone = {"rho", "typical_ratio_decentered"} if rho == 0 else {"rho"}
    assert [*hierarchy.galaxy] == [name for name in free.galaxy if name not in gone]
    assert "rho" in hierarchy.derived
    arrays, point = hierarchy.data.arrays, [jnp.zeros(s) for s in hierarchy.sizes]
    point[1] = jnp.zeros((COUNT, *point[1].shape))
    assert jax.jit(hierarchy.sites)(arrays, *point)["rho"] == rho


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_a_fixed_share_is_the_limit_of_a_latent_one(data, rho):
    """A calibration's two ways to depart, and no other, at the ends of its prior."""
    model = load_model("gradient")
    prepared = model.prepare(data)
    fixed = dataclasses.replace(model, rho=dist.Delta(rho))
    (ratios, _), rng = model.choose(prepared.lines), np.random.default_rng(3)
    offset = rng.normal(size=COUNT)
    offset -= offset.mean()  # so that the mean metallicity is that of the field
    values = {"offset": jnp.asarray(offset)}
    if rho == 0:
        values["local"] = jnp.asarray(rng.normal(size=(COUNT, len(ratios))))
        found = trace(fixed, prepared, **values)
        assert "shared_dispersion" not in found
        untold = dataclasses.replace(prepared, told=np.zeros(len(prepared.lines)))
        values["typical_ratio_decentered"] = jnp.zeros(len(ratios))
        near = trace(model, untold, **values, rho=1e-9)
        for name in ("metallicity", "log_ratio"):
            expected = near[name]["value"]
            np.testing.assert_allclose(found[name]["value"], expected, atol=1e-6)
        return
    values["typical_ratio_decentered"] = jnp.asarray(rng.normal(size=len(ratios)))
    found = trace(fixed, prepared, **values)
    metallicity = found["metallicity"]["value"]
    where = metallicity.mean(keepdims=True)
    typical = found["typical_ratio"]["value"]
    shared = typical - model.calibration.log_ratios(ratios, where)[0]
    shared /= model.calibration.dispersions(ratios, where)[0]
    width = model.calibration.dispersions(ratios, metallicity)
    expected = model.calibration.log_ratios(ratios, metallicity) + width * shared
    np.testing.assert_allclose(found["log_ratio"]["value"], expected, rtol=1e-9)


@pytest.mark.parametrize("card", ["gradient-rho0", "gradient-rho1"])
def test_gradients_with_a_fixed_share_are_finite(data, card):
    """Also where there is no scatter, and the ratios' levers on it vanish."""
    model = load_model(card)
    hierarchy = split(model, model.prepare(data))
    names = [*hierarchy.galaxy]
    sizes = [int(np.prod(shape)) for shape, _ in hierarchy.galaxy.values()]
    place = sum(sizes[: names.index("scatter_signed")])
    theta = jax.random.normal(jax.random.key(2), hierarchy.sizes[:1])
    z = jax.random.normal(jax.random.key(3), (COUNT, hierarchy.sizes[1]))
    look = jax.jit(jax.grad(hierarchy.potential, (1, 2)))
    for scatter in (0.0, 1e-9, -0.2):
        slopes = look(hierarchy.data.arrays, theta.at[place].set(scatter), z)
        assert all(np.isfinite(slope).all() for slope in slopes)


def test_what_cannot_be_fixed_is_refused(data):
    model = load_model("gradient")
    free = {"N2": dataclasses.replace(model.free["N2"], mean=dist.Delta(-1.0))}
    known = dataclasses.replace(data, lines=("NII", *LINES[1:]), complexes=(
        ("NII", *LINES[1:]),
    ))  # fmt: skip
    fixed = dataclasses.replace(model, free=free)
    with pytest.raises(ValueError, match="mean_N2 is fixed at a number, which"):
        split(fixed, fixed.prepare(known))


def test_a_fixed_site_in_a_plate_is_refused(data):
    def model(data):
        with numpyro.plate("complex", 2):
            numpyro.sample("noise_scale", dist.Delta(1.0))

    with pytest.raises(ValueError, match="noise_scale is fixed at a number"):
        split(model, data)


@pytest.mark.parametrize("told", [0.0, 0.3, 40.0, 1e9])
def test_however_decentered_the_law_is_the_same(told):
    """The density of the value, by the slope of the latent in it, is SciPy's."""
    law = dist.Normal(-0.7, 0.03)
    found = handlers.trace(handlers.seed(decenter, 4)).get_trace("x", law, told)
    latent, value = found["x_decentered"], found["x"]["value"]

    def place(drawn):
        told_it = handlers.substitute(decenter, {"x_decentered": drawn})
        return handlers.seed(told_it, 0)("x", law, told)

    slope = jax.grad(place)(latent["value"])
    density = latent["fn"].log_prob(latent["value"]) - jnp.log(slope)
    np.testing.assert_allclose(density, norm(-0.7, 0.03).logpdf(value), rtol=1e-6)
    if told == 0:
        assert (latent["fn"].loc, latent["fn"].scale) == (0, 1)
    if told > 1e6:
        np.testing.assert_allclose(latent["value"], value, rtol=1e-4)

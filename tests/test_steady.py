"""Coordinates that keep still: against the posterior of a linear model, in NumPy."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

from metalgrad import steady
from metalgrad.hierarchy import split
from metalgrad.likelihood import LineLikelihood
from metalgrad.observation import LineData

SPAXELS, LINES, WAVES, WIDTH = 5, 3, 6, 2
RNG = np.random.default_rng(21)
DESIGN = RNG.normal(size=(SPAXELS, LINES, WAVES, WIDTH))
COARSE = np.linspace(2.0, 0.5, WAVES)  # amplitudes of the waves


@pytest.fixture(autouse=True, scope="module")
def double_precision():
    with jax.enable_x64(new_val=True):
        yield


@pytest.fixture(scope="module")
def data():
    return LineLikelihood(
        lines=("OII", "Hbeta", "OIII"),
        complexes=(("OII", "Hbeta", "OIII"),),
        root=RNG.normal(size=(SPAXELS, LINES, LINES)),
        white=RNG.normal(size=(SPAXELS, LINES)),
        misfit=np.zeros((SPAXELS, 1)),
        dof=np.full((SPAXELS, 1), float(LINES)),
        log_norm=np.zeros(SPAXELS),
        position=np.zeros((SPAXELS, 2)),
    )


def model(data):
    """Tell of amplified waves, of which every spaxel sees a sum."""
    size = numpyro.sample("size", dist.Normal().expand([WIDTH]).to_event(1))
    with numpyro.plate("wave", WAVES):
        z = numpyro.sample("z", dist.Normal().expand([WIDTH]).to_event(1))
    amplitude = numpyro.deterministic("z_amplitude", size * COARSE[:, None])
    flux = jnp.einsum("slwc,wc->sl", DESIGN, amplitude * z)
    with numpyro.plate("spaxel", len(data)):
        numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)


@pytest.fixture(scope="module")
def hierarchy(data):
    return split(model, data)


def truth(data, size):
    """Mean and covariance of the waves given their amplitudes, in the order of z."""
    amplitude = (np.asarray(size) * COARSE[:, None]).ravel()
    design = (data.root @ _flat()).reshape(-1, WAVES * WIDTH) * amplitude
    covariance = np.linalg.inv(np.eye(WAVES * WIDTH) + design.T @ design)
    return covariance @ design.T @ np.ravel(data.white), covariance


def _flat():
    return DESIGN.reshape(SPAXELS, LINES, -1)


@pytest.fixture(scope="module")
def coordinates(hierarchy, data):
    size = jnp.array([0.7, 1.3])
    mean, covariance = truth(data, size)
    precision, z = np.linalg.inv(covariance), jnp.asarray(mean)[None]
    return steady.find(hierarchy, data.arrays, size, z, precision)


def test_residuals_are_as_the_test_takes_them(hierarchy, data):
    """The closed form below is of the model's own density."""
    size = jnp.array([0.5, -2.0])
    mean, covariance = truth(data, size)
    slope = jax.grad(hierarchy.potential, argnums=2)
    assert_allclose(slope(data.arrays, size, jnp.asarray(mean)[None]), 0.0, atol=1e-9)
    hessian = jax.hessian(hierarchy.potential, argnums=2)
    found = hessian(data.arrays, size, jnp.zeros((1, WAVES * WIDTH)))[0, :, 0, :]
    assert_allclose(found, np.linalg.inv(covariance), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("size", [(0.7, 1.3), (2.0, 0.1), (-0.7, 1.0), (0.0, 0.0)])
def test_still_normals_are_the_posterior_of_a_linear_model(
    hierarchy, data, coordinates, size
):
    """At any amplitude, also of the other sign, and at none."""
    size = jnp.array(size)

    def go(still):
        return steady.place(hierarchy, data.arrays, coordinates, size, still[None])

    origin = jnp.zeros(WAVES * WIDTH)
    root = np.asarray(jax.jacobian(lambda y: go(y)[0][0])(origin))
    mean, covariance = truth(data, size)
    assert_allclose(go(origin)[0][0], mean, atol=1e-8)
    assert_allclose(root @ root.T, covariance, atol=1e-8)
    assert_allclose(go(origin)[1], np.linalg.slogdet(root)[1], atol=1e-9)


def test_density_is_exact_whatever_the_coordinates(hierarchy, data, coordinates):
    """The volume is that of the map, for amplitudes that no data told."""
    strange = coordinates | {
        "data": coordinates["data"] + 3.0,
        "rows": coordinates["rows"][::-1] * 1.5,
    }
    grams = jnp.einsum("il,jl,bl->bij", *[strange["rows"]] * 2, _is_in(strange))
    strange |= {"grams": grams}
    size, still = jnp.array([1.1, 0.4]), jnp.asarray(RNG.normal(size=WAVES * WIDTH))

    def go(y):
        return steady.place(hierarchy, data.arrays, strange, size, y[None])

    root = jax.jacobian(lambda y: go(y)[0][0])(still)
    assert_allclose(go(still)[1], np.linalg.slogdet(root)[1], atol=1e-9)


def _is_in(coordinates):
    return coordinates["block"] == np.arange(len(coordinates["grams"]))[:, None]


def test_blank_coordinates_are_the_latents(hierarchy, data):
    still = jnp.asarray(RNG.normal(size=(1, WAVES * WIDTH)))
    blank = steady.blank(hierarchy)
    z, volume = steady.place(hierarchy, data.arrays, blank, jnp.ones(WIDTH), still)
    assert_allclose(z, still)
    assert_allclose(volume, 0.0, atol=1e-12)


def test_found_and_blank_coordinates_are_of_one_shape(hierarchy, coordinates):
    blank = steady.blank(hierarchy)
    assert {n: np.shape(v) for n, v in blank.items()} == {
        n: np.shape(v) for n, v in coordinates.items()
    }


def test_a_model_that_tells_no_amplitude_has_steady_ones(data):
    def silent(data):
        with numpyro.plate("wave", WAVES):
            z = numpyro.sample("z", dist.Normal())
        flux = _flat()[..., :WAVES] @ z
        with numpyro.plate("spaxel", len(data)):
            numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)

    plain = split(silent, data)
    found = plain.amplitudes(data.arrays, jnp.zeros(0))
    assert_allclose(found, np.ones((1, WAVES)))
    shifted = replace(plain, coupled=True)
    assert steady.blank(shifted)["weight"].shape == (steady.BANDS, WAVES)


PULL = RNG.normal(size=(SPAXELS, LINES, 2))  # of two parameters on the fluxes


def pulled(data):
    """Tell of amplified waves, and of what adds to them."""
    size = numpyro.sample("size", dist.Normal().expand([WIDTH]).to_event(1))
    level = numpyro.sample("level", dist.Normal().expand([2]).to_event(1))
    with numpyro.plate("wave", WAVES):
        z = numpyro.sample("z", dist.Normal().expand([WIDTH]).to_event(1))
    amplitude = numpyro.deterministic("z_amplitude", size * COARSE[:, None])
    flux = jnp.einsum("slwc,wc->sl", DESIGN, amplitude * z) + PULL @ level
    with numpyro.plate("spaxel", len(data)):
        numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)


def less_by(data, level):
    """Return the data without what the level adds."""
    added = np.einsum("srl,sl->sr", data.root, PULL @ np.asarray(level))
    return replace(data, white=data.white - added)


@pytest.fixture(scope="module")
def following(data):
    """Coordinates that follow the level, and what is left of the bridge."""
    hierarchy, theta = split(pulled, data), jnp.array([0.7, 1.3, 0.5, -0.3])
    mean, covariance = truth(less_by(data, theta[2:]), theta[:2])
    found = steady.find(
        hierarchy,
        data.arrays,
        theta,
        jnp.asarray(mean)[None],
        np.linalg.inv(covariance),
    )

    def potential(theta, y):
        z, volume = steady.place(hierarchy, data.arrays, found, theta, y[None])
        return hierarchy.potential(data.arrays, theta, z) - volume

    still = jnp.zeros(WAVES * WIDTH)
    cross = jax.jacobian(jax.grad(potential, argnums=1))(theta, still)
    bridge = -np.linalg.solve(jax.hessian(potential, argnums=1)(theta, still), cross)
    added = np.array([False, False, True, True])
    return hierarchy, *steady.follow(found, bridge, added), bridge


@pytest.mark.parametrize("size", [(0.7, 1.3), (2.0, 0.1), (-0.7, 1.0), (0.0, 0.0)])
@pytest.mark.parametrize("level", [(0.5, -0.3), (-2.0, 1.0)])
def test_what_adds_to_the_data_is_followed(data, following, size, level):
    """By the mean of a linear model's waves, whatever their amplitudes."""
    hierarchy, coordinates, left, _ = following
    assert_allclose(left[:, 2:], 0.0, atol=1e-6)
    theta = jnp.array([*size, *level])
    still = jnp.zeros((1, WAVES * WIDTH))
    z, _ = steady.place(hierarchy, data.arrays, coordinates, theta, still)
    assert_allclose(z[0], truth(less_by(data, level), size)[0], atol=1e-6)


def test_what_does_not_add_is_left_to_the_bridge(following):
    _, coordinates, left, bridge = following
    assert_allclose(left[:, :2], bridge[:, :2])
    assert not np.any(coordinates["pull"][:, :2])


def test_feeble_directions_are_left_to_the_bridge(following):
    """Following them would divide by nothing."""
    _, coordinates, _, bridge = following
    rows = np.array(coordinates["rows"])
    rows[-1] *= 1e-3 / np.linalg.norm(rows[-1])
    found, left = steady.follow(
        coordinates | {"rows": rows}, bridge, np.array([False, False, True, True])
    )
    assert not np.any(found["pull"][-1])
    along = rows[-1] / np.linalg.norm(rows[-1])
    assert_allclose(along @ left, along @ bridge)

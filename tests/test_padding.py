"""Room for more spaxels: it changes no posterior, and few programs serve all sizes."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_hierarchy import spectra
from test_scene import cut_out, patch, round_psf

import metalgrad as mg
from metalgrad import cards, lines
from metalgrad.hierarchy import LOG_2PI, split
from metalgrad.inference import Shape, machine, prepare
from metalgrad.linemaps import LineMaps
from metalgrad.padding import pad, round_up
from metalgrad.scene import lay_out

pytestmark = pytest.mark.usefixtures("double_precision")

COUNT = 17  # spaxels, which make room for three more


def test_numbers_are_rounded_up_by_a_quarter_at_most():
    numbers = np.arange(1, 5000)
    rounded = np.array([round_up(int(number)) for number in numbers])
    assert_array_equal(rounded[:8], numbers[:8])  # one spaxel stays one
    assert np.all(rounded >= numbers)
    assert np.all(rounded < 1.25 * numbers)
    assert np.mean(rounded / numbers) < 1.125
    assert_array_equal([round_up(int(number)) for number in rounded], rounded)
    assert len(np.unique(rounded[:1000])) == 36


def look(hierarchy, arrays, theta, z):
    """Potential, likelihood of each spaxel, and what is recorded of it."""
    sites = hierarchy.sites(arrays, theta, z)
    maps = [sites[name] for name in ("metallicity", "ebv", "line_flux")]
    value = hierarchy.potential(arrays, theta, z)
    return value, hierarchy.pointwise(arrays, theta, z), *maps


def compare(model, data):
    """Hold a model of padded data against that of the data as they are."""
    rng, data = np.random.default_rng(3), model.prepare(data)
    one = split(model, data)
    units = 1 if one.coupled else len(data)
    theta = jnp.asarray(0.3 * rng.normal(size=one.sizes[0]))
    z = jnp.asarray(rng.normal(size=(units, one.sizes[1])))
    flux = jax.jit(one.sites)(data.arrays, theta, z)["line_flux"]
    white = jnp.einsum("srl,sl->sr", data.root, flux) + rng.normal(size=flux.shape)
    data = replace(data, white=np.asarray(white))  # or densities have no digits left
    roomy = pad(data)
    assert len(roomy) == round_up(len(data)) > len(data)
    other = split(model, roomy)
    assert one.sizes == other.sizes
    more = 0 if one.coupled else len(roomy) - len(data)
    padded = jnp.pad(z, ((0, more), (0, 0)))
    value, *maps = jax.jit(partial(look, one))(data.arrays, theta, z)
    found, *others = jax.jit(partial(look, other))(roomy.arrays, theta, padded)
    assert abs(value) < 1e5
    assert_allclose(found - 0.5 * more * z.shape[1] * LOG_2PI, value, rtol=1e-12)
    for here, there in zip(maps, others, strict=True):
        assert_allclose(there[: len(data)], here, rtol=1e-9, atol=1e-12)
    assert_array_equal(others[0][len(data) :], 0.0)  # nothing is told of the others
    return roomy


@pytest.mark.parametrize("card", cards.names("models"))
def test_no_posterior_of_a_table_is_changed(card):
    compare(mg.load_model(card), spectra(COUNT))


@pytest.mark.parametrize("card", ["gradient", "gradient-psf"])
def test_no_posterior_of_a_cube_is_changed(card):
    model, spaxels = mg.load_model(card), cut_out(patch(9, 11))
    data = spectra(len(spaxels))
    observed = lines.wavelengths(data.lines) * (1 + spaxels.redshift)
    scales = {"scales": model.texture.psf_scales}
    scene = lay_out(spaxels, data.signal(), observed, round_psf(), **scales)
    data = replace(data, position=spaxels.position, pivot=None, scene=scene)
    roomy = compare(model, data)
    sides = [len(roomy.scene.between_y), len(roomy.scene.between_x)]
    assert sides == [10, 12]
    assert [*roomy.scene.shape] == [*map(round_up, scene.shape)]


def draw_maps(count):
    rng = np.random.default_rng(count)
    flux = np.array([40.0, 20.0, 90.0, 60.0]) + rng.normal(size=(count, 4))
    position = rng.uniform(-2, 2, (count, 2))
    names = ("OII", "Hbeta", "OIII", "Halpha")
    return LineMaps(names, flux, np.ones_like(flux), position, "kpc")


@pytest.mark.filterwarnings("ignore::metalgrad.checks.ConvergenceWarning")
def test_a_table_of_another_length_finds_its_programs_compiled():
    model = replace(mg.load_model("flat-independent"))  # new: nothing is compiled yet
    settings = {"seed": 1, "warmup": 30, "draws": 20, "chains": 2, "progress": False}
    compiled = []

    def note(event, _, **about):
        if event.endswith("backend_compile_duration"):
            compiled.append(about["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(note)
    fits = [mg.fit(model, draw_maps(count), **settings) for count in (17, 19)]
    jax.monitoring.unregister_event_duration_listener(note)
    for name in ("_advance", "climb", "collapse"):
        assert compiled.count(f"jit({name})") == 1
    data = pad(prepare(model, draw_maps(19)))
    run = machine(model, Shape.of(data), settings["warmup"], 0.8)
    assert run.advance._cache_size() == 1
    for fit, count in zip(fits, (17, 19), strict=True):
        for group in ("posterior", "log_likelihood", "posterior_predictive"):
            assert fit[group].sizes["spaxel"] == count
        assert fit.constant_data.sizes["spaxel"] == count

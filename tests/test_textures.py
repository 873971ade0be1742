"""How departures are drawn: their plates, their laws, and when there are none."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpyro import handlers
from scipy.stats import kstest, norm

from metalgrad import textures
from metalgrad.scene import lay_out
from metalgrad.spaxels import Spaxels
from metalgrad.textures import Independent, Smooth, Spaxelwise, Waves

pytestmark = pytest.mark.usefixtures("double_precision")

WIDTHS = [(), (1,), (3,), (2, 3)]
POSITION = np.array([[0.3, -0.4], [1.2, 0.7], [-2.0, 0.1], [0.6, 2.2]])


@pytest.fixture(scope="module")
def scene():
    """Of 32 by 36 spaxels of 0.25 kpc, without a PSF."""
    index = np.argwhere(np.ones((32, 36), bool)) + np.array([2, 5])
    spaxels = Spaxels(
        flux=np.zeros((len(index), 1)),
        error=np.ones((len(index), 1)),
        edges=np.array([2.7, 2.8]),
        position=0.25 * (index - [17.2, 23.1]),
        index=index,
        redshift=6.3,
        shape=(40, 50),
        kpc_per_arcsec=5.0,
        pixel_scale=0.05,
    )
    return lay_out(spaxels, np.ones(len(index)), np.array([3.66]))


def likelihood(scene=None):
    return SimpleNamespace(position=jnp.asarray(POSITION), scene=scene)


def spaxelwise(count=4):
    return Spaxelwise(jnp.asarray(POSITION[:count]))


def draw(canvas, *width, **given):
    """Draw by the name of ``offset``; return what is drawn, and the sites behind it."""
    with handlers.seed(rng_seed=3), handlers.trace() as sites:
        drawn = canvas.draw("offset", *width, **given)
    return drawn, sites


@pytest.mark.parametrize("name", textures.__all__)
def test_every_texture_builds_without_arguments_and_gives_a_canvas(name):
    texture = getattr(textures, name)()
    with handlers.seed(rng_seed=0):
        canvas = texture.sample(likelihood())
    assert isinstance(canvas, textures.Canvas)
    assert len(canvas) == len(POSITION)
    assert_array_equal(canvas.position, POSITION)


@pytest.mark.parametrize("width", WIDTHS, ids=str)
def test_spaxels_have_latents_of_their_own_in_their_plate(width):
    drawn, sites = draw(spaxelwise(), *width)
    assert drawn.shape == (4, *width)
    site = sites["offset"]
    assert [frame.name for frame in site["cond_indep_stack"]] == ["spaxel"]
    assert_array_equal(site["value"], drawn)
    point = np.linspace(-2, 1.3, drawn.size).reshape(drawn.shape)
    expected = norm.logpdf(point).reshape(4, -1).sum(axis=1)
    assert_allclose(site["fn"].log_prob(point), expected)


def test_spaxels_tell_about_what_they_depart_and_how_much():
    mean, amplitude = jnp.arange(8.0).reshape(4, 2), jnp.array([0.3, -2.0])
    canvas = spaxelwise()
    with handlers.seed(rng_seed=0), handlers.trace() as sites:
        canvas.draw("offset", 2, amplitude=amplitude, mean=mean)
        canvas.draw("lead", amplitude=0.4)
    assert_array_equal(sites["offset_mean"]["value"], mean)
    assert_array_equal(sites["offset_amplitude"]["value"], np.tile(amplitude, (4, 1)))
    assert_allclose(sites["lead_amplitude"]["value"], np.full((4, 1), 0.4))
    assert "lead_mean" not in sites


def test_spaxels_draw_standard_normals():
    many = np.random.default_rng(1).normal(size=(3000, 2))
    drawn, _ = draw(Spaxelwise(jnp.asarray(many)), 2, length=0.4)
    assert kstest(np.ravel(drawn), norm.cdf).pvalue > 0.01
    bound = 4 / np.sqrt(len(many))
    assert_allclose(np.corrcoef(np.asarray(drawn).T), np.eye(2), atol=bound)


@pytest.mark.parametrize("width", WIDTHS, ids=str)
def test_a_single_spaxel_departs_from_nothing(width):
    drawn, sites = draw(spaxelwise(1), *width)
    assert_array_equal(drawn, np.zeros((1, *width)))
    assert not sites


def test_spaxels_see_their_own_light():
    canvas, light = spaxelwise(), jnp.arange(8.0).reshape(4, 2)
    assert_array_equal(canvas.see(light), light)
    assert_array_equal(canvas.at_spaxels(light), light)
    assert not canvas.smooth


@pytest.mark.parametrize("texture", [Smooth(), Independent()], ids=["smooth", "none"])
def test_without_a_scene_spaxels_are_drawn_one_by_one(texture):
    with handlers.seed(rng_seed=0), handlers.trace() as sites:
        canvas = texture.sample(likelihood())
    assert isinstance(canvas, Spaxelwise)
    assert not sites


def test_on_a_scene_the_length_is_drawn(scene):
    prior = dist.LogNormal(0.2, 0.3)
    with handlers.seed(rng_seed=0), handlers.trace() as sites:
        canvas = Smooth(prior).sample(likelihood(scene))
    assert isinstance(canvas, Waves)
    assert canvas.smooth
    assert sites["length"]["fn"] is prior
    assert canvas.length == sites["length"]["value"]
    assert len(canvas) == len(scene.position)


def test_independent_spaxels_ignore_a_scene(scene):
    with handlers.seed(rng_seed=0):
        canvas = Independent().sample(likelihood(scene))
    assert isinstance(canvas, Spaxelwise)


@pytest.mark.parametrize("width", WIDTHS, ids=str)
@pytest.mark.parametrize("coarse", [False, True], ids=["fine", "coarse"])
def test_waves_are_weighed_in_their_plate(scene, width, coarse):
    drawn, sites = draw(Waves(scene, jnp.array(1.0)), *width, coarse=coarse)
    assert drawn.shape == (len(scene.position), *width)
    drawn_from = scene.coarse if coarse else scene
    site, count = sites["offset"], drawn_from.frequency.size
    assert [frame.name for frame in site["cond_indep_stack"]] == ["wave"]
    assert site["value"].shape == (count, int(np.prod(width)))
    point = np.linspace(-2, 1.3, site["value"].size).reshape(site["value"].shape)
    expected = norm.logpdf(point).sum(axis=1)
    assert_allclose(site["fn"].log_prob(point), expected)


def push(canvas, *width, **given):
    """Root covariance of what is drawn, (cell, *width, weight)."""
    _, sites = draw(canvas, *width, **given)
    shape = sites["offset"]["value"].shape

    def one(weights):
        with handlers.substitute(data={"offset": weights.reshape(shape)}):
            return canvas.draw("offset", *width, **given)

    units = jnp.eye(int(np.prod(shape)))
    return np.moveaxis(np.asarray(jax.vmap(one)(units)), 0, -1)


@pytest.mark.parametrize(
    ("own", "given"), [(2.2, {}), (0.5, {"length": 2.2})], ids=["canvas", "given"]
)
def test_neighbours_depart_alike_over_the_length(scene, own, given):
    """Matérn's closed form, to what finer waves would add."""
    root = push(Waves(scene, jnp.array(own)), **given)
    place = scene.position - scene.position.mean(axis=0)
    inner = np.flatnonzero(np.linalg.norm(place, axis=1) < 1.4)
    rest = root[inner] - root[inner[0]]
    distance = np.linalg.norm(place[inner] - place[inner[0]], axis=1)
    scaled = np.sqrt(3) * distance / 2.2
    expected = 1 - (1 + scaled) * np.exp(-scaled)
    assert_allclose(np.sum(rest**2, axis=1) / 2, expected, atol=0.03)


def test_several_departures_are_independent_and_alike(scene):
    root = push(Waves(scene, jnp.array(0.8)), 2)
    covariance = np.einsum("cai,cbi->abc", root, root)
    assert_allclose(covariance[0, 1], 0.0, atol=1e-12)
    assert_allclose(covariance[0, 0], covariance[1, 1], rtol=1e-9)


def test_a_scene_sees_for_its_waves(scene):
    """A plane is seen where it is emitted, as there is no PSF."""
    canvas = Waves(scene, jnp.array(1.0))
    light = jnp.asarray(scene.position @ np.array([[0.3], [-0.7]]))
    assert_allclose(canvas.see(light)[:, 0], canvas.at_spaxels(light[:, 0]), atol=1e-9)


def test_a_texture_must_give_a_canvas_that_draws():
    class Dark(textures.Canvas):
        def see(self, flux):
            return 0 * flux

    with pytest.raises(TypeError, match="abstract"):
        Dark()


def test_a_texture_of_ones_own_needs_two_methods():
    """The recipe: what a model asks of a canvas is what the base class says."""

    class Alike(textures.Texture):
        def sample(self, data):
            return Rigid(data.position)

    class Rigid(Spaxelwise):
        def draw(self, name, *width, length=None):
            del length
            normals = dist.Normal().expand(width).to_event(len(width))
            return jnp.broadcast_to(numpyro.sample(name, normals), (len(self), *width))

    with handlers.seed(rng_seed=1):
        drawn = Alike().sample(likelihood()).draw("offset", 3)
    assert_array_equal(drawn, np.broadcast_to(drawn[:1], (4, 3)))

"""Light on a scene: Matérn's closed form, SciPy's convolutions, Astropy's sky."""

from dataclasses import replace
from types import SimpleNamespace

import astropy.units as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, ndimage, signal

from metalgrad.psf import FWHM_PER_SIGMA, PSF, nirspec
from metalgrad.scene import Scene, half_light, lay_out
from metalgrad.spaxels import FLUX_DENSITY, Spaxels
from metalgrad.targets import Target

pytestmark = pytest.mark.usefixtures("double_precision")

PIXEL, SCALE = 0.05, 5.0  # arcsec, kpc per arcsec
CORNER, OFF = np.array([3, 7]), np.array([0.3, -0.2])  # spaxels
LINES = np.array([2.72, 3.66, 4.79])  # [O II], [O III] and Hα at a redshift of 6.3
FWHM = 0.16  # arcsec


def cut_out(keep, pixel=PIXEL):
    """Spaxels where ``keep``, of a galaxy whose centre is off their middle."""
    index = np.argwhere(keep) + CORNER
    middle = CORNER + (np.array(keep.shape) - 1) / 2
    position = (index - middle - OFF)[:, ::-1] * pixel * SCALE
    return Spaxels(
        flux=np.zeros((len(index), 1)),
        error=np.ones((len(index), 1)),
        edges=np.array([2.7, 2.8]),
        position=position,
        index=index,
        redshift=6.3,
        shape=(60, 70),
        kpc_per_arcsec=SCALE,
        pixel_scale=pixel,
    )


def patch(rows, columns):
    """A disc with a hole and without one of its sides."""
    y, x = (
        np.indices((rows, columns)) - np.reshape([rows - 1, columns - 1], (2, 1, 1)) / 2
    )
    keep = np.hypot(y / rows, x / columns) <= 0.5
    keep[rows // 3, columns // 2 : columns // 2 + 3] = False
    keep[rows // 2 :, : columns // 5] = False
    return keep


def round_psf(fwhm=FWHM):
    return PSF(np.array([0.5, 5.5]), np.full(2, fwhm), np.full(2, fwhm))


def whole(rows, columns, psf=None, pixel=PIXEL, **given):
    """A scene around a rectangle of spaxels of equal weight."""
    spaxels = cut_out(np.ones((rows, columns), bool), pixel)
    return lay_out(spaxels, np.ones(len(spaxels)), LINES, psf, **given)


def places(scene):
    """Row and column of each cell, from the middle of the data [spaxel]."""
    return scene.position[:, ::-1] / (PIXEL * SCALE) + OFF


# --- what varies -------------------------------------------------------------------


def push(scene, length):
    """What the field makes of each weight, (cell, weight): its root covariance."""
    count = scene.frequency.size
    weights = jnp.eye(count).reshape(*scene.frequency.shape, count)
    return np.asarray(scene.field(weights, scene.root_density(length)))


def variogram(root):
    covariance = root @ root.T
    variance = np.diag(covariance)
    return (variance[:, None] + variance - 2 * covariance) / 2


def matern(position, length):
    distance = np.linalg.norm(position[:, None] - position, axis=-1)
    scaled = np.sqrt(3) * distance / length
    return (1 + scaled) * np.exp(-scaled)


@pytest.fixture(scope="module")
def wide():
    """As many waves as there may be: a box of 10.3 by 12.8 kpc."""
    return whole(33, 41)


def middle(scene, share):
    half = share * np.array([33, 41]) / 2
    return np.flatnonzero(np.all(np.abs(places(scene)) <= half, axis=1))


LONG = 2.2  # kpc: twice the shortest half-wave, a fifth of the box
INNER = 0.35  # of the data: far from where the waves end


def test_long_structure_is_matern(wide):
    """To 3 %: the waves cut at the PSF hold 1 - (1 + (L k)^2 / 3)^-1.5 of it."""
    inner = middle(wide, INNER)
    some = np.ix_(inner, inner)
    expected = 1 - matern(wide.position[inner], LONG)
    assert_allclose(variogram(push(wide, LONG))[some], expected, atol=0.03)


def test_what_is_left_has_no_mean_over_the_light():
    """The covariance is Matérn's once that mean is taken off it, too."""
    spaxels = cut_out(np.ones((33, 41), bool))
    light = np.exp(-0.5 * np.hypot(*spaxels.position.T) ** 2)
    scene = lay_out(spaxels, light, LINES)
    inner = middle(scene, INNER)
    places = np.concatenate([scene.position[inner], spaxels.position])
    total = matern(places, LONG)
    count, share = len(inner), light / light.sum()
    taken = np.eye(count, len(places))
    taken[:, count:] -= share
    found = push(scene, LONG)[inner]
    assert_allclose(found @ found.T, taken @ total @ taken.T, atol=0.03)


def banded(lags, length, bands):
    """Matérn's covariance with only the frequencies of a band, by quadrature."""
    y, x = (np.linspace(0, band, 301) for band in bands)
    density = 1 + (y[:, None] ** 2 + x**2) * length**2 / 3
    density = 2 * np.pi * length**2 * density**-2.5 / np.pi**2
    for lag in lags:
        wave = density * np.cos(y * lag[0])[:, None] * np.cos(x * lag[1])
        yield integrate.simpson(integrate.simpson(wave, x=x), x=y)


@pytest.mark.parametrize("length", [0.3, 0.6, 1.0, LONG])
def test_shorter_structure_is_matern_without_what_is_finer_than_the_psf(wide, length):
    inner = middle(wide, INNER)
    step = np.array(
        [
            wide.frequency[1, 0] ** 2 - wide.frequency[0, 0] ** 2,
            wide.frequency[0, 1] ** 2 - wide.frequency[0, 0] ** 2,
        ]
    )
    base = np.sqrt(step / 3)  # frequencies are multiples of a first one
    bands = base * (np.array(wide.frequency.shape) + 0.5)
    lags = (wide.position[inner] - wide.position[inner[0]])[:, ::-1]
    reference = np.array([*banded(lags, length, bands)])
    found = variogram(push(wide, length))[np.ix_(inner[:1], inner)][0]
    assert_allclose(found, reference[0] - reference, atol=0.03)


def test_variance_in_the_middle_is_one(wide):
    """Before the mean is taken off."""
    scene = replace(wide, mean=np.zeros_like(wide.mean))
    variance = np.sum(push(scene, LONG)[middle(scene, INNER)] ** 2, axis=1)
    assert_allclose(variance, 1.0, atol=0.04)


@pytest.mark.parametrize("psf", [None, round_psf()], ids=["none", "psf"])
@pytest.mark.parametrize("shape", [(15, 22), (16, 9)], ids=str)
def test_the_mean_over_the_light_is_zero(shape, psf):
    spaxels = cut_out(patch(*shape))
    light = np.random.default_rng(2).gamma(0.5, size=len(spaxels))
    scene = lay_out(spaxels, light, LINES, psf)
    for length in (0.2, 1.0, 4.0):
        there = np.asarray(scene.at_spaxels(jnp.asarray(push(scene, length))))
        assert_allclose(np.average(there, axis=0, weights=light), 0.0, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 40), (9, 13), (33, 41), (90, 20)], ids=str)
def test_the_coarse_scene_has_the_longer_waves(shape):
    """Those half of which is 0.2" and more, of the same box, and at least two."""
    scene = whole(*shape)
    coarse = scene.coarse
    for axis, side in enumerate(shape):
        half = (
            2 * 1.25 * side * PIXEL / 2 / np.arange(1, coarse.frequency.shape[axis] + 1)
        )
        assert len(half) <= 2 or half[-1] >= 0.2 * (1 - 1e-9)
    m, n = coarse.frequency.shape
    assert_array_equal(coarse.frequency, scene.frequency[:m, :n])
    weights = np.zeros((*scene.frequency.shape, 1))
    weights[:m, :n, 0] = np.random.default_rng(3).normal(size=(m, n))
    whole_field = scene.field(jnp.asarray(weights), scene.root_density(0.7))
    field = coarse.field(jnp.asarray(weights[:m, :n]), coarse.root_density(0.7))
    assert_allclose(field, whole_field, atol=1e-12)
    assert_array_equal(coarse.position, scene.position)


def test_several_fields_do_not_mix(wide):
    weights = jnp.zeros((*wide.frequency.shape, 3)).at[1, 2, 1].set(1.0)
    found = wide.field(weights, wide.root_density(1.0))
    assert found.shape == (len(wide.position), 3)
    assert_array_equal(found[:, [0, 2]], 0.0)
    assert np.std(found[:, 1]) > 0


# --- what is seen ------------------------------------------------------------------


def disc(y, x, scale=0.25):
    """An exponential disc and waves; its cusp is what cells of 0.1" see worst."""
    return np.exp(-np.hypot(y, x) / scale) * ripple(y, x)


def cloud(y, x):
    return np.exp(-0.5 * (y**2 + x**2 + 0.5 * x * y) / 0.18**2) * ripple(y, x)


def ripple(y, x):
    return 1 + 0.3 * np.sin(2 * np.pi * y / 0.8 + 0.3) * np.cos(2 * np.pi * x / 0.7)


def through_scipy(image, shape, fwhm, fine=9, beyond=14):
    """Blur an image sampled ``fine`` times a spaxel; what is seen at their centres."""
    y, x = (
        ((np.arange(-beyond * fine, (n + beyond) * fine) + 0.5) / fine - n / 2 - off)
        * PIXEL
        for n, off in zip(shape, OFF, strict=True)
    )
    sigma = fwhm / FWHM_PER_SIGMA / PIXEL * fine
    seen = ndimage.gaussian_filter(image(y[:, None], x), sigma, truncate=6)
    first = beyond * fine + fine // 2
    return seen[first : -beyond * fine : fine, first : -beyond * fine : fine]


@pytest.mark.parametrize(
    ("image", "fwhm", "bound"),
    [
        (cloud, 0.16, 0.005),
        (cloud, 0.12, 0.005),
        (disc, 0.16, 0.025),
        (disc, 0.2, 0.02),
    ],
)
def test_a_smooth_image_is_blurred_as_by_scipy(image, fwhm, bound):
    """Of the brightest spaxel; a disc's centre is what errs, all else by a tenth."""
    shape = (19, 27)
    scene = whole(*shape, round_psf(fwhm))
    emitted = image(*scene.position.T[::-1] / SCALE)
    seen = np.asarray(scene.see(jnp.repeat(jnp.asarray(emitted)[:, None], 3, axis=1)))
    expected = through_scipy(image, shape, fwhm).ravel()
    error = (seen - expected[:, None]) / expected.max()
    assert np.abs(error).max() < bound
    assert np.sqrt(np.mean(error**2)) < bound / 8
    assert_allclose(seen.sum(axis=0), expected.sum(), rtol=2e-3)


def test_cells_as_small_as_spaxels_are_convolved_exactly():
    """With an elliptical PSF, turned against the map, of another width per line."""
    pixel, shape, angle, margin = 0.1, (13, 17), 25.0, 2
    scene = whole(*shape, nirspec(), pixel, angle=angle)
    assert scene.shape == (17, 21)
    maps = np.random.default_rng(3).gamma(0.5, size=(3, *scene.shape))
    seen = np.asarray(scene.see(jnp.asarray(maps.reshape(3, -1).T)))
    for line, light in enumerate(maps):
        kernel = nirspec().kernel(LINES[line], pixel, angle)
        full = signal.convolve(light, kernel)
        half = np.array(kernel.shape) // 2 + margin
        inner = full[half[0] :, half[1] :][: shape[0], : shape[1]]
        assert_allclose(seen[:, line], inner.ravel(), atol=1e-3 * light.sum())


def spread(keep):
    """Sum, mean and variance along y and x of what is seen of a point, by line."""
    shape = (45, 51)
    scene = whole(*shape, nirspec()).keep(keep)
    cell = np.argmin(np.linalg.norm(places(scene) - [2, -3], axis=1))
    light = jnp.zeros((len(scene.position), keep.sum())).at[cell].set(1.0)
    seen = np.asarray(scene.see(light))
    total = seen.sum(axis=0)
    grid = np.indices(shape).reshape(2, -1) - np.reshape(shape, (2, 1)) / 2 + 0.5
    away = grid - places(scene)[cell][:, None]
    return total, away @ seen / total, away**2 @ seen / total


@pytest.mark.parametrize("keep", [[True, True, True], [True, False, True]], ids=str)
def test_flux_is_conserved_and_spread_as_each_lines_psf_is_wide(keep):
    """A cell has the light of four spaxels; splines keep moments up to the third."""
    keep = np.array(keep)
    total, mean, square = spread(keep)
    assert_allclose(total, 4.0, rtol=1e-3)
    assert_allclose(mean, 0.0, atol=0.01)
    width = np.array(nirspec().fwhm(LINES[keep])) / FWHM_PER_SIGMA / PIXEL  # along is y
    assert_allclose(square, width**2, rtol=0.02)


@pytest.mark.parametrize("shape", [(12, 17), (9, 6)], ids=str)
def test_without_a_psf_light_is_seen_where_it_is_emitted(shape):
    """Cubics are what the splines between cells keep as they are."""
    spaxels = cut_out(patch(*shape))
    scene = lay_out(spaxels, np.ones(len(spaxels)), LINES)

    def cubic(position):
        y, x = position.T[::-1]
        return np.stack([1 + x * y**2, y - x**3, 2 * x - y], axis=1)

    seen = scene.see(jnp.asarray(cubic(scene.position)))
    assert_allclose(seen, cubic(spaxels.position), atol=1e-10)


def test_five_rows_without_a_psf_are_enough():
    assert whole(5, 21).shape == (3, 11)


def test_compact_light_has_cells_as_small_as_spaxels():
    """Exponential discs of half-light radius 0.12" and 0.24"."""
    spaxels = cut_out(np.ones((41, 41), bool))
    radius = np.hypot(*(spaxels.index - 20.0).T) * PIXEL
    for half, side in ((0.12, 41), (0.24, 21)):
        light = np.exp(-1.678 * radius / half)  # whose square S/N squared goes with
        found = half_light(spaxels, light**2)
        assert_allclose(found, half, atol=PIXEL / 2)
        assert lay_out(spaxels, light**2, LINES).shape == (side, side)


def test_sky_around_a_compact_galaxy_makes_no_coarser_cells():
    spaxels = cut_out(np.ones((81, 81), bool))
    radius = np.hypot(*(spaxels.index - 40.0).T) * PIXEL
    noise = np.random.default_rng(8).exponential(1.5, len(spaxels))
    signal = 400 * np.exp(-1.678 * radius / 0.12) ** 2 + noise
    assert half_light(spaxels, signal) > 1
    assert lay_out(spaxels, signal, LINES).shape == (81, 81)


def test_dark_is_seen_as_dark_and_light_adds_up():
    scene = whole(9, 12, nirspec(), angle=40.0)
    rng = np.random.default_rng(4)
    first, second = jnp.asarray(rng.normal(size=(2, len(scene.position), 3)))
    assert_array_equal(scene.see(0 * first), 0.0)
    both = scene.see(first) - 2.5 * scene.see(second)
    assert_allclose(scene.see(first - 2.5 * second), both, atol=1e-12)


# --- what lies where ---------------------------------------------------------------


@pytest.mark.parametrize("psf", [None, round_psf()], ids=["none", "psf"])
@pytest.mark.parametrize("shape", [(12, 17), (15, 8)], ids=str)
def test_interpolation_is_exact_for_a_plane(shape, psf):
    spaxels = cut_out(patch(*shape))
    scene = lay_out(spaxels, np.ones(len(spaxels)), LINES, psf)
    found = scene.at_spaxels(jnp.asarray(scene.position))
    assert_allclose(found, spaxels.position, atol=1e-12)
    slope = np.array([0.7, -1.3])
    found = scene.at_spaxels(jnp.asarray(8 + scene.position @ slope))
    assert_allclose(found, 8 + spaxels.position @ slope, atol=1e-12)


@pytest.mark.parametrize("turn", [0.0, 35.0])
def test_cells_lie_where_astropy_says(turn):
    """An inclined disc in a cube whose north is turned, beyond its spaxels too."""
    centre = SkyCoord(150.1 * u.deg, -30.2 * u.deg)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [14.3, 11.1]
    wcs.wcs.crval = [centre.ra.deg, centre.dec.deg]
    wcs.wcs.cdelt = [-PIXEL / 3600, PIXEL / 3600]
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs.wcs.pc = [[cosine, -sine], [sine, cosine]]
    flux = np.ones((2, 21, 31))
    cube = SimpleNamespace(
        flux=flux * FLUX_DENSITY,
        error=flux * FLUX_DENSITY,
        edges=np.array([3.0, 3.1, 3.3]) * u.um,
        meta={},
        good=flux > 0,
        wcs=wcs,
        pixel_scale=PIXEL * u.arcsec,
        slices=None,
        shape=(21, 31),
    )
    target = Target(
        name="mock",
        position=centre,
        redshift=6.3,
        kpc_per_arcsec=SCALE,
        radius=0.4,
        axis_ratio=0.6,
        position_angle=62.0,
    )
    spaxels = Spaxels.select(cube, target)
    scene = lay_out(spaxels, np.ones(len(spaxels)), LINES, round_psf())
    first = spaxels.index.min(axis=0) - 4  # 0.2 arcsec, and then every 0.1
    y, x = first[:, None, None] + 2 * np.indices(scene.shape)
    there = wcs.pixel_to_world(x.ravel(), y.ravel())
    distance = centre.separation(there).arcsec
    away = centre.position_angle(there).rad - np.radians(62.0)
    expected = np.stack([np.cos(away), np.sin(away) / 0.6]) * distance * SCALE
    assert_allclose(scene.position, expected.T, atol=1e-6)
    last = first + 2 * np.array(scene.shape) - 2
    assert np.all(last >= spaxels.index.max(axis=0) + 4)


def test_spaxels_are_picked_in_their_order():
    keep = patch(14, 19)
    spaxels = cut_out(keep)
    scene = lay_out(spaxels, np.ones(len(spaxels)), LINES, round_psf())
    assert_array_equal(scene.pick, np.flatnonzero(keep))
    seen = scene.see(jnp.ones((len(scene.position), 3)))
    assert seen.shape == (len(spaxels), 3)


# --- in and out of a compiled function ---------------------------------------------


def test_arrays_go_and_come_back():
    scene = whole(9, 12, round_psf())
    light = jnp.asarray(np.random.default_rng(5).normal(size=(len(scene.position), 3)))
    found = jax.jit(lambda arrays: scene.with_arrays(arrays).see(light))(scene.arrays)
    assert_allclose(found, scene.see(light), atol=1e-12)


def test_a_blank_scene_has_the_same_shapes_and_no_light():
    scene = whole(9, 12, round_psf())
    blank = Scene.blank(scene.sizes)
    assert blank.sizes == scene.sizes
    assert blank.shape == scene.shape
    assert_array_equal(blank.see(jnp.ones((len(scene.position), 3))), 0.0)
    with_light = blank.with_arrays(scene.arrays)
    assert_allclose(with_light.position, scene.position)

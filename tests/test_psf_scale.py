"""A PSF whose width is free: against PSFs of that width, and in the model."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from metalgrad.blur import blur_for, tabulate
from metalgrad.model import load_model
from metalgrad.psf import ImagePSF, nirspec
from metalgrad.scene import lay_out
from metalgrad.spaxels import Spaxels
from metalgrad.textures import SCALES, Smooth

pytestmark = pytest.mark.usefixtures("double_precision")

PIXEL, SCALE = 0.05, 5.5  # arcsec, kpc per arcsec
LINES = np.array([2.72, 3.66, 4.79])


def images():
    """A PSF that is no Gaussian: a core and a ring, as images."""
    y, x = np.indices((41, 41)) - 20.0
    radius = 0.02 * np.hypot(1.2 * y, x)
    one = np.exp(-0.5 * (radius / 0.07) ** 2)
    ring = 0.05 * np.exp(-0.5 * ((radius - 0.22) / 0.05) ** 2)
    return ImagePSF(np.array([2.0, 5.0]), np.array([one + ring, one + 2 * ring]), 0.02)


PSFS = {
    "nirspec": (nirspec(), 0.0),
    "turned": (nirspec(), 33.0),
    "images": (images(), 12.0),
}


def spaxels(rows=9, columns=11):
    index = np.argwhere(np.ones((rows, columns), bool))
    middle = (np.array([rows, columns]) - 1) / 2
    return Spaxels(
        flux=np.zeros((len(index), 1)),
        error=np.ones((len(index), 1)),
        edges=np.array([2.7, 2.8]),
        position=(index - middle)[:, ::-1] * PIXEL * SCALE,
        index=index,
        redshift=6.3,
        shape=(rows, columns),
        kpc_per_arcsec=SCALE,
        pixel_scale=PIXEL,
    )


@pytest.mark.parametrize("name", PSFS)
@pytest.mark.parametrize("scale", [0.8, 1.0, 1.07, 1.25])
def test_between_widths_is_the_psf_of_that_width(name, scale):
    """A point source, blurred by a PSF that was made of that width."""
    psf, angle = PSFS[name]
    data = spaxels()
    about = {"angle": angle}
    signal = np.ones(len(data))
    scene = lay_out(data, signal, LINES, psf, scales=SCALES, **about)
    direct = lay_out(data, signal, LINES, psf.scaled(scale), **about)
    point = np.zeros((len(scene.position), len(LINES)))
    point[np.hypot(*scene.position.T).argmin()] = 1.0
    found = np.asarray(scene.see(jnp.asarray(point), scale))
    truth = np.asarray(direct.see(jnp.asarray(point)))
    # Either is separable to a thousandth of the flux, and spreads by a factor of 1.5.
    # Images change in steps, as pixels come to lie in others.
    assert_allclose(found, truth, atol=5e-3 if name == "images" else 3e-3)
    other = np.asarray(scene.see(jnp.asarray(point), 1.33 * scale / 1.25))
    assert np.abs(other - truth).max() > 3e-3


@pytest.mark.parametrize("name", PSFS)
def test_flux_is_kept_at_every_width(name):
    psf, angle = PSFS[name]
    shape = (61, 63)
    rows, columns = tabulate(psf, LINES, PIXEL, shape, angle, SCALES)
    point = np.zeros(shape)
    point[30, 31] = 1.0
    for line in range(len(LINES)):
        for width in range(len(SCALES)):
            terms = zip(rows[line], columns[line, width], strict=True)
            seen = sum(r @ point @ c.T for r, c in terms)
            assert_allclose(seen.sum(), 1.0, atol=1e-6)


def test_one_width_is_the_blur_of_before():
    psf, angle = PSFS["turned"]
    rows, columns = tabulate(psf, LINES, PIXEL, (12, 14), angle, (1.0,))
    blur = blur_for(psf, LINES, PIXEL, (12, 14), angle)
    assert_array_equal(rows, blur.rows)
    assert_array_equal(columns[:, 0], blur.columns)


def test_the_slope_in_the_width_is_that_of_differences():
    psf, angle = PSFS["turned"]
    data = spaxels()
    scene = lay_out(data, np.ones(len(data)), LINES, psf, angle=angle, scales=SCALES)
    light = jnp.asarray(
        np.random.default_rng(2).gamma(0.5, size=(len(scene.position), 3))
    )

    def height(scale):
        return jnp.sum(scene.see(light, scale) ** 2)

    for scale in (0.82, 1.0, 1.2):
        step = 1e-5
        rise = (height(scale + step) - height(scale - step)) / (2 * step)
        assert_allclose(jax.grad(height)(scale), rise, rtol=1e-6)
    # Beyond what was tabulated it stays, and no number is made up.
    assert height(2.0) == height(SCALES[-1])


def test_only_free_widths_are_laid_out():
    assert Smooth().psf_scales == (1.0,)
    assert Smooth(psf_scale=dist.Delta(1.2)).psf_scales == SCALES
    assert load_model("gradient-psf").texture.psf_scales == SCALES
    assert load_model("gradient").texture.psf_scales == (1.0,)
    assert load_model("gradient-independent").texture.psf_scales == (1.0,)

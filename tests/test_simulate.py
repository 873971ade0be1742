"""Mock observations: what the card says is what comes out."""

import dataclasses
import importlib

import astropy.units as u
import numpy as np
import pytest
from scipy.special import gamma, kv

import metalgrad as mg
from metalgrad.painted import correlate
from metalgrad.psf import FWHM_PER_SIGMA, nirspec
from metalgrad.simulate import simulate


@pytest.fixture(scope="module")
def target():
    return mg.load_target("cosmos24108")


@pytest.fixture(scope="module")
def cube(target):
    return simulate(target, seed=5, width=0.5, truth={"slope": -0.1, "rho": 0.3})


def test_a_mock_says_that_it_is_one(cube):
    assert cube.meta["MOCK"] is True
    assert cube.meta["TRUTH SLOPE"] == -0.1
    assert cube.meta["TRUTH RHO"] == 0.3


def test_the_target_is_in_the_middle(cube, target):
    x, y = cube.wcs.world_to_pixel(target.centre)
    assert (x, y) == pytest.approx(((cube.shape[1] - 1) / 2,) * 2, abs=1e-6)
    assert cube.pixel_scale == 0.05 * u.arcsec


def test_fluxes_and_errors_in_the_aperture_are_those_of_the_paper(cube, target):
    """[O III] by construction; errors, measured on fits, to a third."""
    spaxels = mg.Spaxels.select(cube, dataclasses.replace(target, radius=0.15))
    data, _ = mg.compress(spaxels)
    flux, error = data.best_flux()
    source = target.sources["a"]
    total, spread = flux.sum(axis=0), np.sqrt((error**2).sum(axis=0))
    bright = data.lines.index("OIII")
    assert abs(total[bright] - source["OIII"][0]) < 4 * spread[bright]
    for line in ("OII", "Hbeta", "OIII", "Halpha", "SII"):
        ratio = spread[data.lines.index(line)] / source[line][1]
        assert 0.66 < ratio < 1.5


def test_noise_is_as_large_as_it_says(cube):
    """Away from all lines only stars, almost straight there, and noise are left."""
    wave = cube.wave.to_value(u.um)
    beside = (wave > 4.0) & (wave < 4.6)
    flux, error = cube.flux.value[beside], cube.error.value[beside]
    pull = (flux - np.nanmean(flux, axis=0)) / error
    assert np.nanstd(pull) == pytest.approx(1.0, abs=0.02)


def test_some_voxels_have_no_data(cube):
    share = np.mean(~cube.good)
    assert 0.001 < share < 0.003
    assert np.all(np.isnan(cube.flux.value[~cube.good]))


def test_the_seed_is_all_the_randomness(target):
    first, again, other = (
        simulate(target, seed=seed, width=0.2).flux.value for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other, equal_nan=True)


def test_a_target_without_published_values_cannot_be_drawn():
    target = mg.Target.at(redshift=6.0, radius=0.5)
    with pytest.raises(ValueError, match="no published central source"):
        simulate(target, seed=1)


# --- without noise: where the light falls ------------------------------------------

MODULE = importlib.import_module("metalgrad.simulate")  # the function hides it
DOUBLET = 1 + 1 / 2.984  # [O III] 5008 and 4960, of which the former is published
SMALL = 0.9  # kpc, effective radius: all light falls into a field of 2.2 arcsec


@pytest.fixture
def noiseless(monkeypatch, target):
    """What makes a mock whose noise nothing can see, of a disc that fits the field."""
    noise = MODULE._noise
    monkeypatch.setattr(MODULE, "_noise", lambda *args: 1e-6 * noise(*args))
    small = dataclasses.replace(target, effective_radius=SMALL)

    def make(**given):
        exact = {"velocity_scatter": 0.0, "flagged": 0.0, "width": 2.2, "length": 0.0}
        exact["equivalent_width"] = np.inf  # no stars
        return simulate(small, seed=3, **exact | given)

    return make


def oxygen(cube, redshift):
    """Flux of the [O III] doublet in each spaxel; nothing else is there."""
    wave = cube.wave.to_value(u.um) / (1 + redshift)
    flux, step = cube.flux.value, np.diff(cube.edges.to_value(u.um))
    near = (wave > 0.4911) & (wave < 0.51)
    return np.einsum("wyx,w->yx", flux[near], step[near])


def places(shape):
    """Row and column of each spaxel from the middle."""
    return np.indices(shape) - (np.reshape(shape, (2, 1, 1)) - 1) / 2


@pytest.mark.parametrize("length", [0.0, 0.6])
@pytest.mark.parametrize("psf", [None, nirspec()], ids=["none", "psf"])
def test_oxygen_in_the_aperture_is_as_published(noiseless, target, psf, length):
    """After the PSF has spread it: that is what was measured."""
    light = oxygen(noiseless(psf=psf, length=length, width=0.9), target.redshift)
    aperture = np.hypot(*places(light.shape)) < 3.001  # spaxels of 0.05 arcsec
    expected = DOUBLET * target.sources["a"]["OIII"][0]
    np.testing.assert_allclose(light[aperture].sum(), expected, rtol=2e-3)


def test_without_a_psf_light_is_an_exponential_disc(noiseless, target):
    light = oxygen(noiseless(psf=None), target.redshift)
    radius = np.hypot(*places(light.shape)) * 0.05 * target.kpc_per_arcsec
    inner = radius < 2.0
    fade = np.log(light / light.max())[inner] / radius.clip(1e-9)[inner]
    # Half of the light of an exponential disc is within 1.678 scale lengths.
    np.testing.assert_allclose(fade[radius[inner] > 0], -1.6783 / SMALL, rtol=1e-3)


def test_the_psf_widens_the_light_by_its_own_width(noiseless, target):
    """Second moments of convolved images add up; slices stand along the columns."""

    def moments(psf):
        light = oxygen(noiseless(psf=psf), target.redshift)
        return (places(light.shape) ** 2 * light).sum(axis=(1, 2)) / light.sum()

    width = nirspec().fwhm(0.500824 * (1 + target.redshift))
    expected = (np.array(width) / FWHM_PER_SIGMA / 0.05) ** 2
    found = moments(nirspec()) - moments(None)
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_departures_have_materns_correlation():
    """In its general form, by SciPy's Bessel function of order 3/2."""
    position = np.random.default_rng(2).normal(0.3, 1.0, (30, 2))
    root = correlate(position, 0.7)
    apart = np.linalg.norm(position[:, None] - position, axis=-1)
    scaled = np.sqrt(3) * apart / 0.7 + np.eye(30)
    matern = 2 ** (1 - 1.5) / gamma(1.5) * scaled**1.5 * kv(1.5, scaled)
    expected = np.where(np.eye(30) > 0, 1.0, matern)
    np.testing.assert_allclose(root @ root.T, expected, atol=1e-5)


def test_at_no_length_every_spaxel_departs_alone():
    position = np.random.default_rng(2).normal(0.3, 1.0, (7, 2))
    np.testing.assert_array_equal(correlate(position, 0), np.eye(7))

"""Mock observations: what the card says is what comes out."""

import dataclasses

import astropy.units as u
import numpy as np
import pytest

import metalgrad as mg
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
    """Away from all lines only a flat continuum and noise are left."""
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

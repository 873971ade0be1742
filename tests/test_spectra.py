"""Predicted spectra are lines and continuum as made here with SciPy."""

from dataclasses import replace

import mock_posterior as mock
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from metalgrad import lines
from metalgrad.lsf import prism
from metalgrad.spaxels import Spaxels
from metalgrad.spectra import brightest, predict
from metalgrad.stars import typical
from metalgrad.tuning import Tuning

REDSHIFT = 6.36
EDGES = np.linspace(3.3, 5.2, 301)
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2
SCALE = 0.9
ERROR = 7.0
# [S II] is in the data, and not in the model: its flux is free.
FLUX = {"Hbeta": 40.0, "OIII": 220.0, "NII": 15.0, "Halpha": 130.0, "SII": 25.0}


def spectrum(spaxel, light=1.0):
    """Gaussians integrated over the bins, and a straight continuum times ``light``."""
    total = (200.0 + 10 * spaxel + 30.0 * (CENTRES - 4.0)) * light
    for name, flux in FLUX.items():
        line = lines.catalogue()[name]
        for rest, weight in zip(line.wavelengths, line.weights, strict=True):
            where = rest * (1 + REDSHIFT)
            width = SCALE * prism().sigma(where)
            inside = np.diff(norm.cdf(EDGES, where, width)) / np.diff(EDGES)
            total = total + (1 + spaxel) * flux * weight * inside
    return total


@pytest.fixture(scope="module")
def seen():
    """Spectra without noise, the fit's tree with the true fluxes, and the tuning."""
    given, (index, position) = mock.groups(), mock.places()
    count = len(index)
    bright = (1 + np.arange(count))[:, None] * [FLUX[name] for name in mock.LINES]
    shape = (mock.CHAINS, 10, count, 4)
    given["posterior_predictive"]["model_flux"] = np.broadcast_to(bright, shape).copy()
    spaxels = Spaxels(
        flux=np.array([spectrum(k) for k in range(count)]),
        error=np.full((count, len(CENTRES)), ERROR),
        edges=EDGES,
        position=position,
        index=index,
        redshift=REDSHIFT,
        shape=mock.SHAPE,
        target="a galaxy",
    )
    tuning = Tuning(
        velocity=np.zeros(count),
        velocity_error=np.full(count, 30.0),
        offset=np.zeros(2),
        offset_error=np.full(2, 5.0),
        scale=np.full(2, SCALE),
        scale_error=np.full(2, 0.02),
    )
    return mock.tree(given), spaxels, tuning


def test_true_fluxes_give_the_true_spectrum(seen):
    posterior, spaxels, tuning = seen
    found = predict(posterior, spaxels, [0, 7], tuning=tuning)
    assert [one.lines for one in found] == [("Hbeta", "OIII"), ("NII", "Halpha")]
    for one in found:
        truth = [np.interp(one.wavelength, CENTRES, spectrum(k)) for k in (0, 7)]
        assert one.model.shape == (mock.CHAINS * 10, 2, len(one.wavelength))
        for draw in one.model:
            assert_allclose(draw, truth, rtol=1e-6)


def test_what_the_model_lacks_stays_in_the_residuals(seen):
    posterior, spaxels, tuning = seen
    flux = spaxels.flux.copy()
    peak = int(np.argmin(np.abs(CENTRES - 0.5008240 * (1 + REDSHIFT))))
    flux[3, peak] += 1000.0
    found = predict(posterior, replace(spaxels, flux=flux), [3], tuning=tuning)[0]
    where = int(np.argmin(np.abs(found.wavelength - CENTRES[peak])))
    residual = found.residual[0]
    # The noise scale of the mock is 1.5; some of the excess goes to what is free.
    assert 0.5 < residual[where] / (1000 / (1.5 * ERROR)) < 1
    assert np.abs(residual).argmax() == where


def test_errors_grow_with_the_noise_scale(seen):
    posterior, spaxels, tuning = seen
    error = predict(posterior, spaxels, [2], tuning=tuning)[1].error
    assert_allclose(error, 1.5 * ERROR, rtol=0.01)


def test_bad_voxels_count_for_nothing(seen):
    posterior, spaxels, tuning = seen
    flux, error = spaxels.flux.copy(), spaxels.error.copy()
    flux[5, 40:45], error[5, 40:45] = 0.0, np.inf
    broken = replace(spaxels, flux=flux, error=error)
    whole = predict(posterior, spaxels, [5], tuning=tuning)[0]
    found = predict(posterior, broken, [5], tuning=tuning)[0]
    assert_allclose(found.model, whole.model, rtol=1e-6)
    assert np.isnan(found.residual).sum() == np.isinf(found.error).sum() > 0


def test_a_spectrum_without_tuning_is_tuned(seen):
    """It has stars, which are found with the rest."""
    posterior, spaxels, _ = seen
    light = typical(EDGES, REDSHIFT, prism(), SCALE)
    flux = np.array([spectrum(k, light) for k in range(len(spaxels))])
    for one in predict(posterior, replace(spaxels, flux=flux), [0]):
        truth = np.interp(one.wavelength, CENTRES, flux[0])
        assert_allclose(np.median(one.model, axis=0)[0], truth, atol=ERROR)


@pytest.mark.parametrize("uncertain", ["velocity_error", "offset_error", None])
def test_a_velocity_that_was_not_known_is_found(seen, uncertain):
    """Lines 20 km/s off: either error, of spaxel or of complex, lets them move."""
    posterior, spaxels, tuning = seen
    errors = {
        name: np.full_like(getattr(tuning, name), 300.0 if name == uncertain else 1e-3)
        for name in ("velocity_error", "offset_error")
    }
    tuning = replace(tuning, offset=tuning.offset - 20.0, **errors)
    found = predict(posterior, spaxels, [9], tuning=tuning)[0]  # has no free line
    worst = np.abs(found.residual).max()
    assert worst > 100 if uncertain is None else worst < 0.1


def test_brightest_come_first(seen):
    count = len(seen[1])
    assert_allclose(brightest(seen[0], 3), count - 1 - np.arange(3))
    assert len(brightest(seen[0], 10 * count)) == count


def test_other_spaxels_are_refused(seen):
    posterior, spaxels, _ = seen
    few = replace(
        spaxels,
        flux=spaxels.flux[:3],
        error=spaxels.error[:3],
        position=spaxels.position[:3],
        index=spaxels.index[:3],
    )
    with pytest.raises(ValueError, match=r"3 spectra where the fit has .* were fitted"):
        predict(posterior, few, [0])

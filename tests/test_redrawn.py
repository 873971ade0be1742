"""Errors of a classical gradient, against closed forms and against new noise."""

import numpy as np
from numpy.testing import assert_allclose

from metalgrad.calibrations import load_calibration
from metalgrad.classical import chi2_metallicity, classical_gradient
from metalgrad.redrawn import calibration_error, line_covariance, redraw_metallicity

CARD = load_calibration("curti23")


def fluxes(rows=5):
    """Lines of 12+log(O/H) = 8.3 and no dust, [O II] and [O III] of Curti et al."""
    ratios = {name: 10 ** float(CARD.log_ratio(name, 8.3)) for name in ("R2", "R3")}
    one = {"Hbeta": 100.0, "OIII": 100 * ratios["R3"], "OII": 100 * ratios["R2"]}
    return {line: np.full(rows, flux) for line, flux in one.items()}


def test_noise_of_one_ratio_to_first_order():
    # d Z = d log(O3O2) / (slope of the calibration), which is a parabola: by hand.
    flux = fluxes(1)
    error = {line: 0.02 * value for line, value in flux.items()}
    draws = redraw_metallicity(flux, error, CARD, ("O3O2",), seed=1, draws=2000)
    found = chi2_metallicity(flux, error, CARD, ("O3O2",))
    slope = -2.6856 - 2 * 1.1642 * (found.metallicity - 8.69)
    expected = 0.02 * np.sqrt(2) / np.log(10) / abs(slope)
    assert_allclose(draws.std(), expected, rtol=0.06)
    assert_allclose(calibration_error(found, CARD), 0.15 / abs(slope), rtol=1e-3)
    # Noise apart, χ² says the same, as far as the curve is straight over 0.1 dex.
    quiet = {line: 1e-4 * value for line, value in error.items()}
    told = chi2_metallicity(flux, quiet, CARD, ("O3O2",))
    half = (told.upper - told.lower) / 2
    assert_allclose(calibration_error(told, CARD), half, rtol=0.12)


def test_dust_adds_its_own():
    flux = fluxes(1) | {"Hgamma": np.array([46.6 * 0.8])}
    error = {line: 0.02 * value for line, value in flux.items()}
    draws = redraw_metallicity(flux, error, CARD, ("O3O2",), seed=1, draws=2000)
    # Calzetti's k at Hβ, Hγ, [O III] and [O II]: of E(B-V) and of log(O3O2).
    dusty = 2.5 / (5.123 - 4.597) * 0.4 * (4.463 - 5.856)
    # log(Hβ/Hγ) times dusty, and log([O III]/[O II]): four lines of 2 % each.
    spread = 0.02 / np.log(10) * np.sqrt(2 + 2 * dusty**2)
    x = np.median(draws) - 8.69
    assert_allclose(draws.std(), spread / abs(-2.6856 - 2 * 1.1642 * x), rtol=0.08)


def test_the_error_of_a_slope_is_its_scatter_in_new_noise():
    radius, rng = np.arange(6) * 0.3, np.random.default_rng(3)
    lag = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    shared = np.where(lag == 0, 1.0, np.where(lag == 1, 0.45, 0.0))
    true = fluxes(6)
    error = {line: 0.06 * value for line, value in true.items()}
    root, slopes = np.linalg.cholesky(shared), []
    for _ in range(150):
        flux = {k: v + error[k] * (root @ rng.normal(size=6)) for k, v in true.items()}
        found = chi2_metallicity(flux, error, CARD, ("R2", "R3"))
        slopes.append(np.polyfit(radius, found.metallicity, 1)[0])
    draws = redraw_metallicity(
        true, error, CARD, ("R2", "R3"), seed=1, correlation=shared, draws=400
    )
    covariance = line_covariance(radius, np.full(6, 0.1), np.zeros(6), draws)
    assert_allclose(covariance[0, 0] ** 0.5, np.std(slopes), rtol=0.15)
    alone = redraw_metallicity(true, error, CARD, ("R2", "R3"), seed=1, draws=400)
    wrong = line_covariance(radius, np.full(6, 0.1), np.zeros(6), alone)
    # Of x = -2.5, ..., 2.5 the squares add up to 17.5 and neighbours' products to 8.75.
    gain = 1 + 2 * 0.45 * 8.75 / 17.5
    assert_allclose(covariance[0, 0] / wrong[0, 0], gain, rtol=0.15)


def test_without_noise_the_calibrations_are_left():
    radius, error = np.arange(5) * 0.4, np.array([0.1, 0.1, 0.2, 0.3, np.nan])
    draws = np.tile(np.linspace(8.0, 8.2, 5), (10, 1))
    found = line_covariance(radius, error, error, draws)
    line = classical_gradient(radius, draws[0], error)
    assert_allclose(found, line.covariance, rtol=1e-10)
    # More than the error of the point itself the calibrations' part cannot be.
    assert_allclose(line_covariance(radius, error, error * 9, draws), found)


def test_points_that_a_draw_lacks_are_left_out():
    radius, error = np.arange(4.0), np.full(4, 0.1)
    rng = np.random.default_rng(2)
    draws = 8.2 + 0.1 * rng.normal(size=(4000, 4))
    draws[::2, 3] = np.nan
    draws[0, :3] = np.nan
    found = line_covariance(radius, error, np.zeros(4), draws)
    # Half of the draws have three points, half four: variances of their slopes.
    assert_allclose(found[0, 0], 0.01 * (1 / 2 + 1 / 5) / 2, rtol=0.08)

"""The Gaussian likelihood of line fluxes: against SciPy's densities."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from metalgrad.likelihood import LineLikelihood, from_line_maps
from metalgrad.normal import normal_equations, whiten

pytestmark = pytest.mark.usefixtures("double_precision")

RNG = np.random.default_rng(19)
LINES = ("OII", "NeIII", "Hbeta", "OIII", "Halpha")
COMPLEXES = (("OII", "NeIII"), ("Hbeta", "OIII"), ("Halpha",))
OWNER = np.array([0, 0, 1, 1, 2])
PIXELS = (12, 9, 11)
SPAXELS = 4


@pytest.fixture(scope="module")
def spectra():
    """Per complex: templates (spaxel, line, pixel), flux, weight; no continuum."""
    pieces = []
    for names, count in zip(COMPLEXES, PIXELS, strict=True):
        design = RNG.uniform(0, 1, (SPAXELS, len(names), count))
        weight = RNG.uniform(0.5, 9.0, (SPAXELS, count))
        pieces.append((design, RNG.normal(1, 2, (SPAXELS, count)), weight))
    pieces[1][2][2] = 0.0  # a spaxel without the complex of Hβ and [O III]
    return pieces


@pytest.fixture(scope="module")
def data(spectra):
    precision, vector = np.zeros((SPAXELS, 5, 5)), np.zeros((SPAXELS, 5))
    square, dof, log_norm = [], [], 0.0
    for c, (design, flux, weight) in enumerate(spectra):
        own = np.flatnonzero(c == OWNER)
        none = np.zeros((SPAXELS, 0, flux.shape[1])), np.zeros((SPAXELS, 0))
        found = normal_equations(design, *none, flux, weight)
        precision[:, own[:, None], own], vector[:, own] = found[:2]
        square.append(found[2])
        dof.append(np.count_nonzero(weight, axis=1))
        log_norm += 0.5 * np.log(np.where(weight > 0, weight, 1)).sum(axis=1)
        log_norm -= 0.5 * dof[-1] * np.log(2 * np.pi)
    root, white = whiten(precision, vector, OWNER)
    explained = [(white[:, c == OWNER] ** 2).sum(axis=1) for c in range(3)]
    position = RNG.normal(0.4, 1, (SPAXELS, 2))
    misfit, dof = np.stack(square, 1) - np.stack(explained, 1), np.stack(dof, 1) * 1.0
    return LineLikelihood(
        LINES, COMPLEXES, root, white, misfit, dof, log_norm, position
    )


def full_density(spectra, flux, scale, spaxel):
    """Log density of the channels themselves."""
    total = 0.0
    for c, (design, spectrum, weight) in enumerate(spectra):
        good = weight[spaxel] > 0
        mean = flux[spaxel, c == OWNER] @ design[spaxel][:, good]
        error = scale[c] / np.sqrt(weight[spaxel, good])
        total += norm.logpdf(spectrum[spaxel, good], mean, error).sum()
    return total


@pytest.mark.parametrize("scale", [(1.0, 1.0, 1.0), (0.6, 1.9, 1.2)])
def test_density_is_that_of_the_channels(spectra, data, scale):
    flux = RNG.normal(1, 3, (SPAXELS, 5))
    found = data.log_likelihood(jnp.array(flux), jnp.array(scale))
    expected = [full_density(spectra, flux, scale, s) for s in range(SPAXELS)]
    assert_allclose(found, expected, rtol=1e-9)


def test_best_flux_is_that_of_least_squares(spectra, data):
    flux, error = data.best_flux()
    for spaxel in (0, 1, 3):
        for c, (design, spectrum, weight) in enumerate(spectra):
            own, sharp = c == OWNER, np.sqrt(weight[spaxel])
            rows = (design[spaxel] * sharp).T
            best = np.linalg.lstsq(rows, spectrum[spaxel] * sharp, rcond=None)[0]
            assert_allclose(flux[spaxel, own], best, rtol=1e-9)
            covariance = np.linalg.inv(rows.T @ rows)
            assert_allclose(error[spaxel, own] ** 2, np.diag(covariance), rtol=1e-9)


def test_a_line_without_data_has_no_flux(data):
    flux, error = data.best_flux()
    assert flux[2, 2:4].tolist() == [0, 0]
    assert error[2, 2:4].tolist() == [np.inf, np.inf]
    assert np.isfinite(error[2, [0, 1, 4]]).all()


def test_two_lines_of_one_shape_have_no_fluxes(data):
    root = np.array(data.root)
    root[0, :, 3] = 2.0 * root[0, :, 2]
    _, error = replace(data, root=root).best_flux()
    assert error[0, 2:4].tolist() == [np.inf, np.inf]


def test_every_row_belongs_to_one_complex(data):
    assert data.row_complex.tolist() == OWNER.tolist()
    assert data.labels == ["OII+NeIII", "Hbeta+OIII", "Halpha"]
    assert not (data.root * (OWNER[:, None] != OWNER)).any()


KEPT = [("OII", "Hbeta", "OIII", "Halpha"), ("NeIII", "OIII", "Halpha")]


@pytest.mark.parametrize("names", KEPT, ids="+".join)
def test_keep_is_the_marginal(data, names):
    """Of a Gaussian the marginal is the sub-block of its covariance."""
    index = [LINES.index(name) for name in names]
    kept = data.keep(names)
    assert kept.lines == names
    before, after = data.best_flux(), kept.best_flux()
    assert_allclose(after[0], before[0][:, index], rtol=1e-7, atol=1e-12)
    assert_allclose(after[1], before[1][:, index], rtol=1e-7)
    for spaxel in (0, 1, 3):
        covariance = np.linalg.inv(data.precision()[spaxel])[np.ix_(index, index)]
        assert_allclose(
            np.linalg.inv(kept.precision()[spaxel]), covariance, rtol=1e-7, atol=1e-12
        )


@pytest.mark.parametrize("names", KEPT, ids="+".join)
def test_keep_leaves_each_row_in_its_complex(data, names):
    kept = data.keep(names)
    owner = kept.row_complex
    assert kept.complexes[1] == tuple(n for n in COMPLEXES[1] if n in names)
    assert not (kept.root * (owner[:, None] != owner)).any()


@pytest.mark.parametrize("scale", [(1.0, 1.0, 1.0), (0.6, 1.9, 1.2)])
def test_keep_integrates_over_the_flux(spectra, data, scale):
    flux = RNG.normal(1, 1, (SPAXELS, 5))
    kept = data.keep(("OII", "NeIII", "Hbeta", "Halpha"))
    found = kept.log_likelihood(jnp.array(flux[:, [0, 1, 2, 4]]), jnp.array(scale))
    oiii = np.linspace(-15, 15, 301)  # steps well below its error: exact for a Gaussian
    for spaxel in (0, 1, 3):
        trial = np.broadcast_to(flux, (len(oiii), SPAXELS, 5)).copy()
        trial[:, spaxel, 3] = oiii
        curve = [full_density(spectra, t, scale, spaxel) for t in trial]
        area = logsumexp(curve) + np.log(oiii[1] - oiii[0])
        assert_allclose(found[spaxel], area, rtol=1e-9)
    # a line that was never seen is no part of the density
    assert_allclose(found[2], full_density(spectra, flux, scale, 2), rtol=1e-9)


def test_keeping_every_line_changes_nothing(data):
    assert data.keep(LINES) is data


def test_a_complex_without_a_line_is_dropped(data):
    kept = data.keep(("Hbeta", "OIII"))
    assert kept.complexes == (("Hbeta", "OIII"),)
    assert_allclose(kept.misfit[:, 0], data.misfit[:, 1])
    assert_allclose(kept.dof[:, 0], data.dof[:, 1])
    assert_allclose(kept.best_flux()[0], data.best_flux()[0][:, 2:4])


def line_maps():
    flux = RNG.normal(2, 3, (SPAXELS, 3))
    error = RNG.uniform(0.5, 3, (SPAXELS, 3))
    error[1, 2], error[3, 0] = np.inf, np.inf
    flux[1, 2] = np.nan
    position = RNG.normal(0.4, 1, (SPAXELS, 2))
    return SimpleNamespace(
        lines=("OII", "Hbeta", "OIII"), flux=flux, error=error, position=position
    )


def test_line_maps_are_independent_gaussians():
    maps = line_maps()
    data = from_line_maps(maps)
    model = RNG.normal(1, 2, (SPAXELS, 3))
    found = data.log_likelihood(jnp.array(model), jnp.ones(1))
    for spaxel in range(SPAXELS):
        seen = np.isfinite(maps.error[spaxel])
        covariance = np.diag(maps.error[spaxel, seen] ** 2)
        normal = multivariate_normal(model[spaxel, seen], covariance)
        assert_allclose(found[spaxel], normal.logpdf(maps.flux[spaxel, seen]))
    flux, error = data.best_flux()
    assert_allclose(flux, np.where(np.isfinite(maps.error), maps.flux, 0.0))
    assert_allclose(error, maps.error)
    assert not data.has_channels


def test_line_maps_keep_some_lines():
    maps = line_maps()
    kept = from_line_maps(maps).keep(("OII", "OIII"))
    model = RNG.normal(1, 2, (SPAXELS, 2))
    found = kept.log_likelihood(jnp.array(model), jnp.ones(1))
    for spaxel in (0, 2):
        error = maps.error[spaxel, [0, 2]]
        expected = norm(model[spaxel], error).logpdf(maps.flux[spaxel, [0, 2]]).sum()
        assert_allclose(found[spaxel], expected)
    assert kept.complexes == (("OII", "OIII"),)


def test_pivot_is_where_the_signal_is(data):
    signal = (np.asarray(data.white) ** 2).sum(axis=1) - 5
    radius = np.hypot(*data.position.T)
    expected = np.average(radius, weights=np.maximum(signal, 1e-6))
    assert_allclose(data.pivot, expected, rtol=1e-9)


def test_typical_flux_is_the_mean_or_its_error():
    maps = line_maps()
    weight = 1 / maps.error[:, 1] ** 2
    maps.flux[:, 1] = np.abs(maps.flux[:, 1]) + 2
    expected = np.average(maps.flux[:, 1], weights=weight)
    assert_allclose(10 ** from_line_maps(maps).typical[1], expected)
    maps.flux[:, 1] *= -1
    error = weight.sum() ** -0.5
    assert_allclose(10 ** from_line_maps(maps).typical[1], error)


def test_what_is_told_hangs_on_no_unit():
    """Nor overflows: 1 / 1e-20 squared is no number in single precision."""
    maps = line_maps()
    scaled = {"flux": 1e-20 * maps.flux, "error": 1e-20 * maps.error}
    tiny = SimpleNamespace(**(vars(maps) | scaled))
    with jax.enable_x64(new_val=False):
        told = from_line_maps(tiny).told
    assert_allclose(told, from_line_maps(maps).told)


WRONG = [(np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan), (1.0, 0.0), (1.0, -2.0)]


@pytest.mark.parametrize(("flux", "error"), WRONG)
def test_what_is_no_measurement_is_named(flux, error):
    maps = line_maps()
    maps.flux[2, 1], maps.error[2, 1] = flux, error
    with pytest.raises(ValueError, match=f"of {maps.lines[1]} in spaxel 2 is not"):
        from_line_maps(maps)


def test_something_must_have_been_measured():
    maps = line_maps()
    maps.error[:] = np.inf
    with pytest.raises(ValueError, match="no line flux was measured"):
        from_line_maps(maps)


def test_arrays_go_and_come_back(data):
    doubled = {name: 2 * array for name, array in data.arrays.items()}
    assert_allclose(data.with_arrays(doubled).white, 2 * data.white)
    assert data.with_arrays(doubled).lines == LINES
    assert len(data) == SPAXELS

"""Normal equations: against dense covariance matrices, one spaxel at a time."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import null_space, solve_triangular, toeplitz
from scipy.stats import multivariate_normal

from metalgrad.normal import (
    FLOOR,
    band_cholesky,
    band_solve,
    decompose,
    make_definite,
    normal_equations,
    square_root,
    whiten,
)

RNG = np.random.default_rng(7)
SPAXELS, LINES, TERMS, PIXELS = 3, 2, 4, 17


@pytest.fixture(scope="module")
def problem():
    """Two flat terms, two with a prior, some channels without a datum."""
    design = RNG.normal(1, 1, (SPAXELS, LINES, PIXELS))
    basis = RNG.normal(0, 2, (SPAXELS, TERMS, PIXELS))
    prior = np.array([[0, 0, 1.7, 30.0]] * SPAXELS) * RNG.uniform(1, 2, (SPAXELS, 1))
    weight = RNG.uniform(0.5, 4.0, (SPAXELS, PIXELS))
    weight[1, 3:6] = 0.0
    return design, basis, prior, RNG.normal(2, 3, (SPAXELS, PIXELS)), weight


def dense(problem, spaxel):
    """The same density from a dense covariance: what the flat terms do not touch."""
    design, basis, prior, flux, weight = (array[spaxel] for array in problem)
    good = weight > 0
    flat, proper = basis[prior == 0][:, good], basis[prior > 0][:, good]
    covariance = np.diag(1 / weight[good])
    covariance += proper.T @ np.diag(1 / prior[prior > 0]) @ proper
    beside = null_space(flat).T
    # Integrating a flat coefficient out leaves the projection, times 1 / sqrt(det).
    jacobian = -0.5 * np.linalg.slogdet(flat @ flat.T)[1]

    def log_density(line_flux):
        residual = flux[good] - line_flux @ design[:, good]
        normal = multivariate_normal(cov=beside @ covariance @ beside.T)
        return normal.logpdf(beside @ residual) + jacobian

    return log_density, good.sum() - len(flat)


def test_density_is_that_of_a_dense_covariance(problem):
    prior, weight = problem[2], problem[4]
    precision, vector, square, log_det, rank = normal_equations(*problem)
    assert rank.tolist() == [TERMS] * SPAXELS
    for spaxel in range(SPAXELS):
        log_density, dof = dense(problem, spaxel)
        for flux in RNG.normal(0, 3, (3, LINES)):
            chi = flux @ precision[spaxel] @ flux - 2 * vector[spaxel] @ flux
            norm = np.log(weight[spaxel][weight[spaxel] > 0]).sum()
            norm += np.log(prior[spaxel, 2:]).sum() - log_det[spaxel]
            found = -0.5 * (chi + square[spaxel] - norm + dof * np.log(2 * np.pi))
            assert_allclose(found, log_density(flux), rtol=1e-9)


def test_a_line_that_the_terms_can_make_is_forgotten(problem):
    design, basis, prior, flux, weight = (np.copy(array) for array in problem)
    design[:, 1] = 0.3 * basis[:, 0] - 2.0 * basis[:, 1]
    precision, vector = normal_equations(design, basis, prior, flux, weight)[:2]
    assert np.all(precision[:, 0, 0] > 0)
    assert not precision[:, 1].any()
    assert not precision[:, :, 1].any()
    assert not vector[:, 1].any()


def test_terms_beyond_the_data_are_no_terms(problem):
    design, basis, prior, flux, weight = (np.copy(array) for array in problem)
    prior[:] = 0.0
    weight[0, 3:] = 0.0  # three channels under four flat terms
    weight[2, 5:] = 0.0
    basis[2, 3] = 2.0 * basis[2, 1]  # and two terms of one shape
    precision, _, square, _, rank = normal_equations(design, basis, prior, flux, weight)
    assert rank.tolist() == [3, 4, 3]
    assert not precision[0].any()
    assert_allclose(square[0], 0.0, atol=1e-9)
    beside = null_space((basis[2] * np.sqrt(weight[2]))[[0, 1, 2], :5]).T
    expected = np.sum((beside @ (flux[2] * np.sqrt(weight[2]))[:5]) ** 2)
    assert_allclose(square[2], expected)


def random_precisions(count, width):
    matrix = RNG.normal(0, 1, (count, width, width + 2))
    # errors of faint and bright lines differ by orders of magnitude
    scale = 10 ** RNG.uniform(-4, 4, (count, width))
    return (matrix @ np.swapaxes(matrix, 1, 2)) * scale[:, :, None] * scale[:, None]


def test_square_root():
    precision = random_precisions(4, 3)
    vector = RNG.normal(0, 1, (4, 3)) * np.sqrt(np.einsum("sll->sl", precision))
    root, white = square_root(precision, vector)
    assert_allclose(np.swapaxes(root, 1, 2) @ root, precision, rtol=1e-9)
    assert_allclose(np.einsum("srl,sr->sl", root, white), vector, rtol=1e-7)


def test_directions_without_information_are_zero():
    precision = random_precisions(2, 3)
    vector = np.ones((2, 3))
    precision[0, 1] = precision[0, :, 1] = vector[0, 1] = 0.0
    root, white = square_root(precision, vector)
    empty = ~root[0].any(axis=1)
    assert empty.sum() == 1
    assert not white[0, empty].any()
    assert_allclose(np.swapaxes(root, 1, 2) @ root, precision, rtol=1e-9)


def test_each_row_stays_in_its_complex():
    precision = random_precisions(5, 4)
    owner = np.array([0, 1, 0, 2])
    precision *= owner[:, None] == owner
    vector = RNG.normal(0, 1, (5, 4)) * np.sqrt(np.einsum("sll->sl", precision))
    root, white = whiten(precision, vector, owner)
    assert not (root * (owner[:, None] != owner)).any()
    assert_allclose(np.swapaxes(root, 1, 2) @ root, precision, rtol=1e-9)
    assert_allclose(np.einsum("srl,sr->sl", root, white), vector, rtol=1e-7)


def test_inverse_rank_and_determinant():
    precision = random_precisions(4, 3)
    found = decompose(precision)
    assert_allclose(found.inverse() @ precision, [np.eye(3)] * 4, atol=1e-6)
    assert_allclose(found.log_det, np.linalg.slogdet(precision)[1], rtol=1e-9)
    assert found.seen.all()
    assert np.all(found.rank == 3)


def test_two_lines_of_one_shape_are_told_only_together():
    precision = np.array([[[4.0, 4.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 25.0]]])
    found = decompose(precision)
    assert found.rank[0] == 2
    assert found.seen.tolist() == [[False, False, True]]
    assert_allclose(found.inverse(), np.linalg.pinv(precision), atol=1e-12)


def test_nothing_to_invert_is_no_error():
    found = decompose(np.zeros((3, 0, 0)))
    assert found.inverse().shape == (3, 0, 0)
    assert found.rank.tolist() == [0, 0, 0]
    assert found.log_det.tolist() == [0, 0, 0]


# ------------------------------------------------------------------ correlated noise


def correlation_matrix(lags, count):
    return toeplitz(np.pad(lags, (0, count))[:count])


@pytest.mark.parametrize("lags", [[1.0], [1.0, -0.4], [1.0, 0.74, 0.37, 0.1, 0.03]])
@pytest.mark.parametrize("count", [3, 30])
def test_banded_factor_is_that_of_the_good_channels(lags, count):
    rng = np.random.default_rng(count)
    good = rng.uniform(size=(5, count)) < [[0.0], [0.5], [0.8], [0.9], [1.0]]
    factor = band_cholesky(np.array(lags), good)
    rows = rng.normal(size=(5, 2, count)) * good[:, None, :]
    found = band_solve(factor, rows)
    for spaxel, kept in enumerate(good):
        inner = correlation_matrix(lags, count)[kept][:, kept]
        lower = np.linalg.cholesky(inner)
        expected = solve_triangular(lower, rows[spaxel][:, kept].T, lower=True).T
        assert_allclose(found[spaxel][:, kept], expected, atol=1e-12)
        assert not found[spaxel][:, ~kept].any()
        log_det = 2 * np.log(factor[:, 0, spaxel]).sum()
        assert_allclose(log_det, np.linalg.slogdet(inner)[1], atol=1e-12)


def test_one_factor_serves_many():
    good = RNG.uniform(size=(1, 12)) < 0.8
    factor = band_cholesky(np.array([1.0, 0.5, 0.1]), good)
    rows = RNG.normal(size=(4, 3, 12)) * good
    found = band_solve(factor, rows)
    for row in range(4):
        assert_allclose(found[row : row + 1], band_solve(factor, rows[row : row + 1]))


def test_definite_correlations_stay():
    lags = np.array([1.0, 0.74, 0.37, 0.10, 0.03])
    assert make_definite(lags, 80) is not lags
    assert_allclose(make_definite(lags, 80), lags, rtol=0, atol=0)
    assert_allclose(make_definite(np.ones(1), 80), [1.0])


@pytest.mark.parametrize("lags", [[1.0, 0.8], [1.0, 0.74, 0.1], [1.0, 0.9, 0.7, 0.5]])
def test_others_are_shrunk_no_more_than_they_must(lags):
    found = make_definite(np.array(lags), 60)
    assert found[0] == 1.0
    assert_allclose(found[1:] / lags[1:], found[1] / lags[1])
    assert 0 < found[1] < lags[1]
    least = np.linalg.eigvalsh(correlation_matrix(found, 60))[0]
    assert_allclose(least, FLOOR, rtol=1e-8)

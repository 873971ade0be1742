"""Variable projection: against SciPy's least squares, and its errors against noise."""

import numpy as np
from numpy.testing import assert_allclose
from scipy.optimize import least_squares

from metalgrad.projection import Problem

X = np.linspace(-5, 5, 60)
AXES = np.linspace(-1, 1, 41), np.linspace(0.5, 1.5, 41)
BASIS = np.stack([np.ones_like(X), X])


def bump(place, width):
    return np.exp(-0.5 * ((X - place) / width) ** 2)


def problem(data, sigma, **changes):
    table = np.array([[[bump(p, w)] for w in AXES[1]] for p in AXES[0]])
    weight = np.broadcast_to(sigma**-2.0, data.shape).copy()
    seen = np.ones((len(data), 1), bool)
    return Problem(data, changes.get("weight", weight), AXES, table, BASIS, seen)


def residual(p, data, weight):
    return (p[0] * bump(*p[1:3]) + p[3] + p[4] * X - data) * np.sqrt(weight)


def draw(count, amplitude=5.0, sigma=0.3, place=0.21, width=0.83):
    rng = np.random.default_rng(count)
    clean = amplitude * bump(place, width) + 0.4 - 0.1 * X
    return clean + sigma * rng.normal(size=(count, len(X)))


def test_it_finds_what_scipy_finds():
    data = draw(5)
    weight = np.full(data.shape, 0.3**-2.0)
    weight[2, 20:26] = 0.0  # no data there
    found = problem(data, 0.3, weight=weight).solve()
    for number, row in enumerate(data):
        best = least_squares(
            residual, [3.0, 0.0, 1.0, 0.0, 0.0], args=(row, weight[number])
        )
        spread = np.sqrt(np.diag(np.linalg.inv(best.jac.T @ best.jac)))
        assert_allclose(found.amplitude[number, 0], best.x[0], atol=0.05 * spread[0])
        assert_allclose(found.shape[number], best.x[1:3], atol=0.1 * spread[1])
        assert_allclose(found.amplitude_error[number, 0], spread[0], rtol=0.02)
        assert_allclose(found.shape_error[number], spread[1:3], rtol=0.02)
        assert_allclose(np.sum(found.residual[number] ** 2), 2 * best.cost, rtol=1e-3)
        assert found.dof[number] == np.sum(weight[number] > 0) - 5


def test_residuals_are_as_large_as_expected():
    found = problem(draw(2000), 0.3).solve()
    seen = np.mean(found.residual**2, axis=0)
    assert_allclose(seen, found.expected.mean(axis=0), atol=5 * np.sqrt(2 / 2000))
    assert_allclose(seen.sum(), np.sum(found.expected.mean(axis=0)), rtol=0.01)
    assert_allclose(found.expected.mean(axis=0).sum(), len(X) - 5, rtol=0.01)


def test_what_is_not_there_has_errors_no_wider_than_the_bounds():
    found = problem(draw(50, amplitude=0.0), 0.3).solve()
    limit = np.array([2.0, 1.0]) / np.sqrt(12)
    assert (found.shape_error <= limit * 1.001).all()
    assert np.isfinite(found.amplitude_error).all()
    assert np.all((found.shape >= [-1, 0.5]) & (found.shape <= [1, 1.5]))

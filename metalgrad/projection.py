"""Many small least-squares fits at once, linear but for two bounded parameters.

Variable projection (Golub & Pereyra 1973): amplitudes are solved for exactly at every
trial of the two, which are searched for on a grid and then by the method of Levenberg
and Marquardt, in all fits side by side.
"""

from dataclasses import dataclass, fields
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

GRID = (5, 3)  # trials of either parameter before refinement
ROUNDS = 20
CLOSE = 1e-3  # gain in χ² that is worth no further round
STIFF = 1e5  # damping at which no step helps
SHAPE = np.arange(-2, 0)  # the two parameters, behind all terms
RIDGE = 1e-10  # of a unit diagonal: terms that the data do not tell apart stay finite


@dataclass(frozen=True, eq=False)
class Solution:
    """Least squares of many fits.

    Attributes
    ----------
    amplitude, amplitude_error : array, (fit, term)
        Of the terms that the two parameters shape; NaN and inf where they are not seen.
    shape, shape_error : array, (fit, 2)
    residual : array, (fit, pixel)
        Over the errors; 0 where there is no datum.
    expected : array, (fit, pixel)
        What the square of ``residual`` is in the mean, if the errors are right.
    dof : array of int, (fit,)
    """

    amplitude: Float[np.ndarray, "fit term"]
    amplitude_error: Float[np.ndarray, "fit term"]
    shape: Float[np.ndarray, "fit 2"]
    shape_error: Float[np.ndarray, "fit 2"]
    residual: Float[np.ndarray, "fit pixel"]
    expected: Float[np.ndarray, "fit pixel"]
    dof: Int[np.ndarray, " fit"]

    @classmethod
    def join(cls, parts: list["Solution"]) -> "Solution":
        """Put fits of the same kind one after another."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))


@dataclass(frozen=True, eq=False)
class Problem:
    """Data, and a model of terms that two parameters shape and terms that they do not.

    Attributes
    ----------
    data, weight : array, (fit, pixel)
        Weight is the inverse variance; 0 where there is no datum.
    axes : pair of array, (node,)
        Values of the two parameters, evenly spaced: from the least to the largest.
    table : array, (node, node, term, pixel)
        Terms of unit amplitude there; in between they are interpolated linearly.
    basis : array, (constant term, pixel)
    seen : array of bool, (fit, term)
        The terms that the data tell at all; others are left out.
    """

    data: Float[np.ndarray, "fit pixel"]
    weight: Float[np.ndarray, "fit pixel"]
    axes: tuple[Float[np.ndarray, " first"], Float[np.ndarray, " second"]]
    table: Float[np.ndarray, "first second term pixel"]
    basis: Float[np.ndarray, "constant pixel"]
    seen: Bool[np.ndarray, "fit term"]

    @property
    def bounds(self) -> Float[np.ndarray, "2 2"]:
        """Least and largest of either parameter."""
        return np.array([[axis[0], axis[-1]] for axis in self.axes])

    def solve(self, correlation: np.ndarray | None = None) -> Solution:
        """Find the least squares and their errors.

        A parameter's standard error is at most that of a uniform distribution within
        its bounds, so that those of faint terms stay finite.

        Parameters
        ----------
        correlation : array, (lag,), optional
            Of the noise of pixels 0, 1, ... apart.  Errors are made for it, while the
            fit is weighted as if it was not there.
        """
        shape = self._refine(self._search())
        every = np.arange(len(shape))
        model, _ = self._terms(every, shape)
        best, _ = self._project(every, model)
        jacobian = self._jacobian(every, model, self._slopes(every, shape), best)
        error, expected = self._spread(jacobian, correlation)
        count, alive = self.seen.shape[1], self.seen.any(axis=1)
        left = self.data - np.einsum("sp,spn->sn", best, model)
        used = self.seen.sum(axis=1) + len(self.basis) + 2 * alive
        return Solution(
            np.where(self.seen, best[:, :count], np.nan),
            np.where(self.seen, error[:, :count], np.inf),
            np.where(alive[:, None], shape, np.nan),
            np.where(alive[:, None], error[:, -2:], np.inf),
            left * np.sqrt(self.weight),
            np.where(self.weight > 0, expected, 0.0),
            (self.weight > 0).sum(axis=1) - used,
        )

    def _terms(self, rows, shape):
        """All terms of the model, (row, term, pixel), and how those shaped change.

        The latter are two, for either parameter.
        """
        low, high = self.bounds.T
        count = np.array(self.table.shape[:2]) - 1
        place = (shape - low) / (high - low) * count
        cell = np.clip(place.astype(int), 0, count - 1)
        u, v = ((place - cell)[:, k, None, None] for k in range(2))
        i, j = cell.T
        corner = [[self.table[i + a, j + b] for b in (0, 1)] for a in (0, 1)]
        near, far = (c[0] + v * (c[1] - c[0]) for c in corner)
        across = (1 - u) * (corner[0][1] - corner[0][0])
        across += u * (corner[1][1] - corner[1][0])
        seen = self.seen[rows][..., None]
        basis = np.broadcast_to(self.basis, (len(rows), *self.basis.shape))
        model = np.concatenate([(near + u * (far - near)) * seen, basis], axis=1)
        steps = (high - low) / count
        return model, [(far - near) * seen / steps[0], across * seen / steps[1]]

    def _slopes(self, rows, shape):
        """Return how the terms that are shaped change, across two cells of the table.

        Within one, the slope is that of its middle: good enough for a step.
        """
        slopes, count = [], self.seen.shape[1]
        for number, axis in enumerate(self.axes):
            step = np.eye(2)[number] * (axis[1] - axis[0])
            up, down = (np.clip(shape + s * step, *self.bounds.T) for s in (1, -1))
            rise = self._terms(rows, up)[0] - self._terms(rows, down)[0]
            slopes.append(rise[:, :count] / (up - down)[:, number, None, None])
        return slopes

    def _project(self, rows, model):
        """Amplitudes of the terms and χ², the least there is for this model."""
        root = np.sqrt(self.weight[rows])
        white, data = model * root[:, None], self.data[rows] * root
        normal = white @ np.swapaxes(white, 1, 2)
        best = _solve(normal, np.einsum("spn,sn->sp", white, data))
        left = data - np.einsum("sp,spn->sn", best, white)
        return best, np.sum(left**2, axis=1)

    def _jacobian(self, rows, model, slopes, best):
        """Return derivatives of the model over the errors, (row, parameter, pixel)."""
        count = self.seen.shape[1]
        turns = [np.einsum("sp,spn->sn", best[:, :count], slope) for slope in slopes]
        whole = np.concatenate([model, np.stack(turns, axis=1)], axis=1)
        return whole * np.sqrt(self.weight[rows])[:, None]

    def _spread(self, jacobian, correlation):
        """Return standard errors of all parameters, and squares of residuals.

        With ``H`` what projects data on the model, residuals have the covariance
        ``(1 - H) R (1 - H)``.
        """
        lags = np.ones(1) if correlation is None else correlation
        uniform = np.zeros((jacobian.shape[1],) * 2)
        # What bounds say of the parameters does not grow with the noise.
        uniform[SHAPE, SHAPE] = 12 / np.ptp(self.bounds, axis=1) ** 2
        covariance = _invert(jacobian @ np.swapaxes(jacobian, 1, 2) + uniform)
        noisy = _correlate(jacobian, lags)
        meat = jacobian @ np.swapaxes(noisy, 1, 2)
        error = covariance @ (meat + uniform) @ covariance
        expected = lags[0] - 2 * np.sum(jacobian * (covariance @ noisy), axis=1)
        twice = (covariance @ meat @ covariance) @ jacobian
        expected += np.sum(jacobian * twice, axis=1)
        return np.sqrt(np.maximum(np.einsum("spp->sp", error), 0.0)), expected

    def _search(self):
        """Best point of a grid for each fit, (fit, 2)."""
        nodes = [
            np.linspace(0, len(axis) - 1, count).round().astype(int)
            for axis, count in zip(self.axes, GRID, strict=True)
        ]
        least, shape = np.full(len(self.data), np.inf), np.zeros((len(self.data), 2))
        vector = self.weight * self.data
        seen = np.pad(self.seen, [(0, 0), (0, len(self.basis))], constant_values=True)
        for node in product(*nodes):
            model = np.concatenate([self.table[node], self.basis])
            pairs = (model[:, None] * model[None]).reshape(-1, model.shape[1])
            normal = (self.weight @ pairs.T).reshape(-1, len(model), len(model))
            normal *= seen[:, :, None] & seen[:, None]
            side = (vector @ model.T) * seen
            loss = -np.einsum("sp,sp->s", _solve(normal, side), side)
            better = loss < least
            least[better] = loss[better]
            shape[better] = [axis[n] for axis, n in zip(self.axes, node, strict=True)]
        return shape

    def _refine(self, shape):
        """Follow χ² down from each point, (fit, 2)."""
        rows, damping = np.flatnonzero(self.seen.any(axis=1)), np.full(len(shape), 1e-3)
        for _ in range(ROUNDS):
            if not len(rows):
                break
            here = shape[rows]
            model, slopes = self._terms(rows, here)
            best, chi2 = self._project(rows, model)
            left = self.data[rows] - np.einsum("sp,spn->sn", best, model)
            jacobian = self._jacobian(rows, model, slopes, best)
            step, gain = self._step(rows, here, jacobian, left, damping[rows])
            there = np.clip(here + step, *self.bounds.T)
            better = self._project(rows, self._terms(rows, there)[0])[1] < chi2
            shape[rows[better]] = there[better]
            damping[rows] *= np.where(better, 0.2, 10.0)
            moving = np.any(there != here, axis=1) & (damping[rows] < STIFF)
            rows = rows[moving & (gain > CLOSE)]
        return shape

    def _step(self, rows, here, jacobian, left, damping):
        """Step of both parameters, and the gain in χ² that it promises.

        At a bound a parameter stays where it would leave.
        """
        gradient = np.einsum("spn,sn->sp", jacobian, left * np.sqrt(self.weight[rows]))
        normal = jacobian @ np.swapaxes(jacobian, 1, 2)
        low, high = self.bounds.T
        slope = gradient[:, -2:]
        stuck = ((here <= low) & (slope < 0)) | ((here >= high) & (slope > 0))
        free = np.ones(gradient.shape)
        free[:, -2:] = ~stuck
        normal *= free[:, :, None] * free[:, None]
        normal[:, SHAPE, SHAPE] *= 1 + damping[:, None]
        step = _solve(normal, gradient * free)
        return step[:, -2:], np.einsum("sp,sp->s", step, gradient * free)


def _scaled(normal):
    """Scale to unit diagonals; return the scales, too."""
    diagonal = np.einsum("spp->sp", normal)
    scale = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    unit = normal / (scale[:, :, None] * scale[:, None])
    # A term that is not there at all has its amplitude 0.
    unit += (RIDGE + (diagonal <= 0))[..., None] * np.eye(normal.shape[1])
    return unit, scale


def _solve(normal, vector):
    unit, scale = _scaled(normal)
    return np.linalg.solve(unit, (vector / scale)[..., None])[..., 0] / scale


def _invert(normal):
    unit, scale = _scaled(normal)
    return np.linalg.inv(unit) / (scale[:, :, None] * scale[:, None])


def _correlate(rows, correlation):
    """Multiply with the matrix of a stationary correlation, along the last axis."""
    result = rows * correlation[0]
    for lag in range(1, min(len(correlation), rows.shape[-1])):
        result[..., lag:] += correlation[lag] * rows[..., :-lag]
        result[..., :-lag] += correlation[lag] * rows[..., lag:]
    return result

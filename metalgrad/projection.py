"""Many small least-squares fits at once, linear but for two bounded parameters.

Variable projection (Golub & Pereyra 1973): amplitudes are solved for exactly at every
trial of the two, which are searched for on a grid and then by the method of Levenberg
and Marquardt, in all fits side by side.
"""

from dataclasses import dataclass, fields
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

from metalgrad.scaling import correlate, invert, solve

GRID = (5, 3)  # trials of either parameter before refinement
ROUNDS = 20
CLOSE = 1e-3  # gain in χ² that is worth no further round
STIFF = 1e5  # damping at which no step helps
SHAPE = np.arange(-2, 0)  # the two parameters, behind all terms


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
    prior : array, (fit, constant term, constant term), optional
        Precision of the amplitudes of ``basis``; flat by default.
    pull : array, (fit, constant term), optional
        ``prior`` times the amplitudes' mean beforehand; 0 by default.
    """

    data: Float[np.ndarray, "fit pixel"]
    weight: Float[np.ndarray, "fit pixel"]
    axes: tuple[Float[np.ndarray, " first"], Float[np.ndarray, " second"]]
    table: Float[np.ndarray, "first second term pixel"]
    basis: Float[np.ndarray, "constant pixel"]
    seen: Bool[np.ndarray, "fit term"]
    prior: Float[np.ndarray, "fit constant constant"] | None = None
    pull: Float[np.ndarray, "fit constant"] | None = None

    def __post_init__(self):
        """Fill in a flat prior."""
        flat = np.zeros((len(self.data), len(self.basis)))
        if self.prior is None:
            object.__setattr__(self, "prior", flat[..., None] * flat[:, None])
        if self.pull is None:
            object.__setattr__(self, "pull", flat)

    @property
    def bounds(self) -> Float[np.ndarray, "2 2"]:
        """Least and largest of either parameter."""
        return np.array([[axis[0], axis[-1]] for axis in self.axes])

    @property
    def _constant(self):
        """Where the terms of ``basis`` are among all parameters."""
        return slice(self.seen.shape[1], self.seen.shape[1] + len(self.basis))

    def solve(self, correlation: np.ndarray | None = None, shape=None) -> Solution:
        """Find the least squares and their errors.

        Those of the two parameters are at most that of a uniform distribution within
        bounds, finite for faint terms.

        Parameters
        ----------
        correlation : array, (lag,), optional
            Of the noise of pixels 0, 1, ... apart.  Errors, not weights, allow for it.
        shape : array, (fit, 2), optional
            Where to start; found on a grid by default.
        """
        shape = self.seek() if shape is None else self._refine(shape.copy())
        model, best, jacobian = self._linearise(shape)
        error, expected = self._spread(jacobian, correlation)
        count, alive = self.seen.shape[1], self.seen.any(axis=1)
        left = self.data - np.einsum("sp,spn->sn", best, model)
        free = np.einsum("scc->sc", self.prior) == 0
        used = self.seen.sum(axis=1) + free.sum(axis=1) + 2 * alive
        return Solution(
            np.where(self.seen, best[:, :count], np.nan),
            np.where(self.seen, error[:, :count], np.inf),
            np.where(alive[:, None], shape, np.nan),
            np.where(alive[:, None], error[:, -2:], np.inf),
            left * np.sqrt(self.weight),
            np.where(self.weight > 0, expected, 0.0),
            (self.weight > 0).sum(axis=1) - used,
        )

    def seek(self) -> Float[np.ndarray, "fit 2"]:
        """Find the two parameters alone."""
        return self._refine(self._search())

    def _linearise(self, shape):
        """Terms of the model, their amplitudes, and the derivatives over errors."""
        every = np.arange(len(shape))
        model, _ = self._terms(every, shape)
        best, _ = self._project(every, model)
        slopes = self._slopes(every, shape)
        return model, best, self._jacobian(every, model, slopes, best)

    def _terms(self, rows, shape):
        """All terms, (row, term, pixel), and what either parameter changes."""
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
        """Amplitudes of the terms and χ², the least there is for this model.

        The latter with what the prior adds, but for a constant.
        """
        root = np.sqrt(self.weight[rows])
        white, data = model * root[:, None], self.data[rows] * root
        normal = white @ np.swapaxes(white, 1, 2)
        side = np.einsum("spn,sn->sp", white, data)
        known = self._constant
        normal[:, known, known] += self.prior[rows]
        side[:, known] += self.pull[rows]
        best = solve(normal, side)
        left = data - np.einsum("sp,spn->sn", best, white)
        constant = best[:, known]
        strain = np.einsum("sc,scd,sd->s", constant, self.prior[rows], constant)
        strain -= 2 * np.einsum("sc,sc->s", constant, self.pull[rows])
        return best, np.sum(left**2, axis=1) + strain

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
        # What is known beforehand, by the bounds too, does not grow with the noise.
        firm = np.zeros((len(jacobian), *(jacobian.shape[1],) * 2))
        firm[:, self._constant, self._constant] = self.prior
        firm[:, SHAPE, SHAPE] = 12 / np.ptp(self.bounds, axis=1) ** 2
        covariance = invert(jacobian @ np.swapaxes(jacobian, 1, 2) + firm)
        noisy = correlate(jacobian, lags)
        meat = jacobian @ np.swapaxes(noisy, 1, 2)
        error = covariance @ (meat + firm) @ covariance
        expected = lags[0] - 2 * np.sum(jacobian * (covariance @ noisy), axis=1)
        twice = (covariance @ meat @ covariance) @ jacobian
        expected += np.sum(jacobian * twice, axis=1)
        return np.sqrt(np.maximum(np.einsum("spp->sp", error), 0.0)), expected

    def tell(self, shape, count):
        """Find what the data say about the last ``count`` terms of ``basis``.

        ``shape`` has the two parameters; a precision and a vector of each fit return.
        """
        jacobian = self._linearise(shape)[2]
        normal = jacobian @ np.swapaxes(jacobian, 1, 2)
        side = np.einsum("spn,sn->sp", jacobian, self.data * np.sqrt(self.weight))
        last = np.arange(self._constant.stop - count, self._constant.stop)
        rest = np.setdiff1d(np.arange(normal.shape[1]), last)
        normal[:, SHAPE, SHAPE] += 12 / np.ptp(self.bounds, axis=1) ** 2
        onto = normal[:, rest[:, None], last]
        weight = np.swapaxes(onto, 1, 2) @ invert(normal[:, rest[:, None], rest])
        precision = normal[:, last[:, None], last] - weight @ onto
        return precision, side[:, last] - np.einsum("scr,sr->sc", weight, side[:, rest])

    def _search(self):
        """Best point of a grid for each fit, (fit, 2)."""
        nodes = [
            np.linspace(0, len(axis) - 1, count).round().astype(int)
            for axis, count in zip(self.axes, GRID, strict=True)
        ]
        least, shape = np.full(len(self.data), np.inf), np.zeros((len(self.data), 2))
        vector = self.weight * self.data
        seen = np.pad(self.seen, [(0, 0), (0, len(self.basis))], constant_values=True)
        known = self._constant
        for node in product(*nodes):
            model = np.concatenate([self.table[node], self.basis])
            pairs = (model[:, None] * model[None]).reshape(-1, model.shape[1])
            normal = (self.weight @ pairs.T).reshape(-1, len(model), len(model))
            normal *= seen[:, :, None] & seen[:, None]
            side = (vector @ model.T) * seen
            normal[:, known, known] += self.prior
            side[:, known] += self.pull
            loss = -np.einsum("sp,sp->s", solve(normal, side), side)
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
            step, gain = self._step(rows, here, jacobian, left, best, damping[rows])
            there = np.clip(here + step, *self.bounds.T)
            better = self._project(rows, self._terms(rows, there)[0])[1] < chi2
            shape[rows[better]] = there[better]
            damping[rows] *= np.where(better, 0.2, 10.0)
            moving = np.any(there != here, axis=1) & (damping[rows] < STIFF)
            rows = rows[moving & (gain > CLOSE)]
        return shape

    def _step(self, rows, here, jacobian, left, best, damping):
        """Step of both parameters, and the gain in χ² that it promises.

        At a bound a parameter stays where it would leave.
        """
        gradient = np.einsum("spn,sn->sp", jacobian, left * np.sqrt(self.weight[rows]))
        normal = jacobian @ np.swapaxes(jacobian, 1, 2)
        known = self._constant
        normal[:, known, known] += self.prior[rows]
        held = np.einsum("scd,sd->sc", self.prior[rows], best[:, known])
        gradient[:, known] += self.pull[rows] - held
        low, high = self.bounds.T
        slope = gradient[:, -2:]
        stuck = ((here <= low) & (slope < 0)) | ((here >= high) & (slope > 0))
        free = np.ones(gradient.shape)
        free[:, -2:] = ~stuck
        normal *= free[:, :, None] * free[:, None]
        normal[:, SHAPE, SHAPE] *= 1 + damping[:, None]
        step = solve(normal, gradient * free)
        return step[:, -2:], np.einsum("sp,sp->s", step, gradient * free)

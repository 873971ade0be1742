"""The mode of a hierarchical posterior and its curvature there.

The Hessian of a `Hierarchy` is an arrowhead: a dense corner for the galaxy, one small
block per spaxel, and the bridge between them.  A handful of Hessian-vector products
gives all of it, and its Cholesky factor takes a standard normal to the posterior's
Gaussian approximation at a cost linear in the number of spaxels.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, Float

from metalgrad import settled
from metalgrad.collapse import collapse, scatter_start
from metalgrad.hierarchy import Hierarchy
from metalgrad.starts import prior_points

LEAST = 1e-2  # curvature, where the prior's is 1
NEARLY = 1.0  # nats per unit: the gradient of what is as good as a mode
ROUNDS = 3  # of climbing: spaxels that change their branch may stop it midway
NEAR = 0.1  # dex, ours: modes of closer levels are on one branch
HOPELESS = 10.0  # nats under the best mode, ours


@dataclass(frozen=True, eq=False)
class Expansion:
    """A Gaussian approximation of the posterior, as an affine map of white noise.

    ``theta = theta0 + stretch @ eta`` and
    ``z = z0 + bridge @ (theta - theta0) + root @ xi``, unit by unit.

    Attributes
    ----------
    theta : array, (galaxy,)
    z : array, (unit, latent)
    stretch : array, (galaxy, galaxy)
    bridge : array, (unit, latent, galaxy)
    root : array, (unit, latent, latent), optional
        The identity where the latents are still coordinates.
    log_evidence : float
        Laplace approximation.
    steady : dict, optional
        What ``z`` are coordinates of: those of `steady.place` where all spaxels are one
        unit, and of `settled.place` where each is one.
    """

    theta: Float[Array, " galaxy"]
    z: Float[Array, "unit latent"]
    stretch: Float[Array, "galaxy galaxy"]
    bridge: Float[Array, "unit latent galaxy"]
    root: Float[Array, "unit latent latent"] | None
    log_evidence: float
    steady: dict | None = None

    @property
    def arrays(self) -> dict:
        """The map's arrays, to pass through a compiled function."""
        names = ("theta", "z", "stretch", "bridge", "root", "steady")
        arrays = {name: getattr(self, name) for name in names}
        return {name: value for name, value in arrays.items() if value is not None}


def unwhiten(arrays, eta, xi):
    """Apply the map of an `Expansion`, given its ``arrays``."""
    step = arrays["stretch"] @ eta
    bridge = arrays["bridge"].reshape(-1, step.size)  # one matrix product is quickest
    centre = arrays["z"] + (bridge @ step).reshape(xi.shape)
    if "root" in arrays:
        xi = jnp.einsum("sij,sj->si", arrays["root"], xi)
    return arrays["theta"] + step, centre + xi


def find_mode(hierarchy: Hierarchy, arrays, theta, key, tolerance: float = 1e-2):
    """Climb to a mode of the collapsed posterior by BFGS.

    That is a mode in the standardised values of normals: what has a latent width of its
    own would else be drawn to where that vanishes (`Hierarchy.peaks`).

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
        Start.
    key : jax.Array
    tolerance : float
        On the gradient [nats per unit].

    Returns
    -------
    theta : array, (galaxy,)
    z : array, (spaxel, latent)
    potential : float
        Collapsed, and standardised.
    """
    for each in jax.random.split(key, ROUNDS):
        theta, z, potential, gradient = _climb(
            hierarchy, arrays, theta, each, tolerance
        )
        if np.abs(gradient).max() < NEARLY:
            break
    return theta, z, potential if np.isfinite(potential) else np.inf


def _climb(hierarchy, arrays, theta, key, tolerance):
    """Climb once, from fresh latents; return the gradient at the end, too."""
    latents = jax.jit(scatter_start, static_argnums=0)(hierarchy, arrays, theta, key)
    latents = collapse(hierarchy, arrays, theta, latents, 10)[2]
    lowest = np.inf

    def look(theta, z, steps):
        potential, gradient, z = collapse(hierarchy, arrays, theta, z, steps)
        height, slope = _peaks(hierarchy, arrays, theta)
        return float(potential + height), np.asarray(gradient + slope), z

    def objective(point):
        nonlocal latents, lowest
        potential, gradient, z = look(jnp.asarray(point), latents, 4)
        if not (np.isfinite(potential) and np.all(np.isfinite(gradient))):
            return 1e10, np.zeros(len(point))
        if potential < lowest:  # a wild trial is no place to start the next from
            latents, lowest = z, potential
        return potential, gradient

    found = scipy.optimize.minimize(
        objective,
        np.asarray(theta),
        jac=True,
        method="BFGS",
        options={"gtol": tolerance},
    )
    theta = jnp.asarray(found.x)
    potential, gradient, z = look(theta, latents, 10)
    return theta, z, potential, gradient


@partial(jax.jit, static_argnums=0)
def _peaks(hierarchy, arrays, theta):
    return jax.value_and_grad(hierarchy.peaks, argnums=1)(arrays, theta)


@partial(jax.jit, static_argnums=0)
def _bend_of_peaks(hierarchy, arrays, theta):
    return jax.hessian(hierarchy.peaks, argnums=1)(arrays, theta)


@partial(jax.jit, static_argnums=0)
def _spaxel_map(hierarchy, arrays, coordinates, theta, still):
    """How what is still moves with ``theta``, and the roots of its covariances."""

    def potential(theta, still):
        z, log_volume = settled.place(hierarchy, arrays, coordinates, theta, still)
        return hierarchy.potential(arrays, theta, z) - log_volume

    slope = jax.grad(potential, argnums=1)

    def bend(unit):
        """How the slope changes along one latent of every spaxel, or of the galaxy."""
        galaxy, latent = unit[: len(theta)], unit[len(theta) :]
        step = galaxy, jnp.broadcast_to(latent, still.shape)
        return jax.jvp(slope, (theta, still), step)[1]

    columns = jax.lax.map(bend, jnp.eye(len(theta) + still.shape[1]))
    cross, hessian = jnp.split(jnp.moveaxis(columns, 0, -1), [len(theta)], axis=-1)
    value, axes = jnp.linalg.eigh((hessian + hessian.swapaxes(1, 2)) / 2)
    root = axes / jnp.sqrt(jnp.maximum(jnp.abs(value), LEAST))[:, None]
    bridge = -root @ (root.swapaxes(1, 2) @ cross)
    return jnp.where(hierarchy.is_signed, 0.0, bridge), root


def expand(hierarchy: Hierarchy, arrays, key, starts: int = 5) -> Expansion:
    """Find the best mode, as `find_branches` does, and the curvature there."""
    return expand_about(
        hierarchy, arrays, *find_branches(hierarchy, arrays, key, starts)[0]
    )


def find_branches(hierarchy: Hierarchy, arrays, key, starts: int = 5) -> list[tuple]:
    """Find a mode of the collapsed posterior on each live branch, the best first.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
        `LineLikelihood.arrays`.
    key : jax.Array
    starts : int
        The prior's median and draws from the prior.

    Returns
    -------
    list of (theta, z)

    Raises
    ------
    ValueError
        If no start led to a mode.
    """
    key_points, key_modes = jax.random.split(key)
    points = prior_points(hierarchy, key_points, starts)
    modes = [find_mode(hierarchy, arrays, theta, key_modes) for theta in points]
    return [mode[:2] for mode in choose_live(hierarchy, modes)]


def choose_live(hierarchy: Hierarchy, modes: list[tuple]) -> list[tuple]:
    """Choose the modes that are not hopeless, the best on each branch, best first.

    Parameters
    ----------
    hierarchy : Hierarchy
    modes : list of (theta, ..., potential)

    Raises
    ------
    ValueError
        If none has a finite potential.
    """
    modes = [mode for mode in modes if np.isfinite(mode[-1])]
    if not modes:
        raise ValueError(
            "no mode of the posterior was found from any start; check the data for "
            "fluxes or errors that are many orders of magnitude off"
        )
    chosen, is_level = [], hierarchy.is_level
    for mode in sorted(modes, key=lambda mode: mode[-1]):
        near = [np.abs((mode[0] - other[0])[is_level]) < NEAR for other in chosen]
        if chosen and (mode[-1] > chosen[0][-1] + HOPELESS or any(map(np.all, near))):
            continue
        chosen.append(mode)
    return chosen


def expand_about(hierarchy: Hierarchy, arrays, theta, z) -> Expansion:
    """Gaussian approximation about a mode of the collapsed posterior.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
    theta : array, (galaxy,)
    z : array, (spaxel, latent)
    """
    hessian = finite_hessian(hierarchy, arrays, theta, z)
    hessian = hessian + _bend_of_peaks(hierarchy, arrays, theta)
    value, axes = jnp.linalg.eigh(hessian)
    value = jnp.maximum(jnp.abs(value), LEAST)
    coordinates = settled.find(hierarchy, arrays, theta, z)
    # What is not told is left where it is by `settled.place`.
    still = jnp.where(hierarchy.locate(arrays, theta, z)[1] == 0, z, 0.0)
    bridge, root = _spaxel_map(hierarchy, arrays, coordinates, theta, still)
    potential = float(collapse(hierarchy, arrays, theta, z, 10)[0])
    volume = 0.5 * (len(theta) * np.log(2 * np.pi) - float(jnp.sum(jnp.log(value))))
    stretch = axes / jnp.sqrt(value)
    evidence = volume - potential
    return Expansion(theta, still, stretch, bridge, root, evidence, coordinates)


def finite_hessian(hierarchy, arrays, theta, z, step: float = 3e-3):
    """Hessian of the collapsed potential from differences of its gradient."""
    columns = []
    for unit in step * np.eye(len(theta)):
        ahead = collapse(hierarchy, arrays, theta + unit, z)[1]
        behind = collapse(hierarchy, arrays, theta - unit, z)[1]
        columns.append((ahead - behind) / (2 * step))
    hessian = jnp.stack(columns)
    return (hessian + hessian.T) / 2

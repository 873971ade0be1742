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
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from metalgrad.collapse import (
    collapse,
    inverse_root,
    relax,
    scatter_start,
    solve,
    spaxel_curvature,
)
from metalgrad.hierarchy import Hierarchy


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
        Where all spaxels are one unit: ``z`` are coordinates of `steady.place`.
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
    """
    latents = jax.jit(scatter_start, static_argnums=0)(hierarchy, arrays, theta, key)
    latents = collapse(hierarchy, arrays, theta, latents, 10)[2]

    lowest = np.inf

    def objective(point):
        nonlocal latents, lowest
        potential, gradient, z = collapse(
            hierarchy, arrays, jnp.asarray(point), latents
        )
        if not (np.isfinite(potential) and np.all(np.isfinite(gradient))):
            return 1e10, np.zeros(len(point))
        if potential < lowest:  # a wild trial is no place to start the next from
            latents, lowest = z, potential
        return float(potential), np.asarray(gradient)

    found = scipy.optimize.minimize(
        objective,
        np.asarray(theta),
        jac=True,
        method="BFGS",
        options={"gtol": tolerance},
    )
    theta = jnp.asarray(found.x)
    potential, _, z = collapse(hierarchy, arrays, theta, latents, 10)
    potential = float(potential)
    return theta, z, potential if np.isfinite(potential) else np.inf


@partial(jax.jit, static_argnums=0)
def _spaxel_map(hierarchy, arrays, theta, z):
    """How the spaxels' modes move with ``theta``, and the roots of their blocks."""
    _, root = spaxel_curvature(hierarchy, arrays, theta, z)

    def column(unit):
        slope = partial(jax.grad(hierarchy.potential, argnums=2), arrays)
        return -solve(root, jax.jvp(lambda t: slope(t, z), (theta,), (unit,))[1])

    bridge = jax.lax.map(column, jnp.eye(len(theta)))
    return jnp.moveaxis(bridge, 0, -1), inverse_root(root)


def expand(hierarchy: Hierarchy, arrays, key, starts: int = 4) -> Expansion:
    """Find the best mode from several starts and the curvature there.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
        `LineLikelihood.arrays`.
    key : jax.Array
    starts : int
        The prior's median and draws from the prior.
    """
    key_points, key_modes = jax.random.split(key)
    points = hierarchy.prior_points(key_points, starts)
    modes = [find_mode(hierarchy, arrays, theta, key_modes) for theta in points]
    theta, z, potential = min(modes, key=lambda mode: mode[2])
    if not np.isfinite(potential):
        raise ValueError(
            "no mode of the posterior was found from any start; check the data for "
            "fluxes or errors that are many orders of magnitude off"
        )
    hessian = finite_hessian(hierarchy, arrays, theta, z)
    value, axes = jnp.linalg.eigh(hessian)
    value = jnp.maximum(jnp.abs(value), 1e-2)
    bridge, root = _spaxel_map(hierarchy, arrays, theta, z)
    volume = 0.5 * (len(theta) * np.log(2 * np.pi) - float(jnp.sum(jnp.log(value))))
    stretch = axes / jnp.sqrt(value)
    return Expansion(theta, z, stretch, bridge, root, volume - potential)


def finite_hessian(hierarchy, arrays, theta, z, step: float = 3e-3):
    """Hessian of the collapsed potential from differences of its gradient."""
    columns = []
    for unit in step * np.eye(len(theta)):
        ahead = collapse(hierarchy, arrays, theta + unit, z)[1]
        behind = collapse(hierarchy, arrays, theta - unit, z)[1]
        columns.append((ahead - behind) / (2 * step))
    hessian = jnp.stack(columns)
    return (hessian + hessian.T) / 2


@partial(jax.jit, static_argnums=0)
def draw(hierarchy: Hierarchy, arrays, affine, key) -> dict:
    """Draw from the Laplace approximation: the galaxy, then each spaxel given it.

    Returns
    -------
    dict
        ``galaxy`` and ``spaxel``, in the coordinates of `unwhiten`.
    """
    key_galaxy, key_spaxel = jax.random.split(key)
    eta = jax.random.normal(key_galaxy, affine["theta"].shape)
    theta, centre = unwhiten(affine, eta, jnp.zeros_like(affine["z"]))
    z = relax(hierarchy, arrays, theta, centre, 10)
    _, root = spaxel_curvature(hierarchy, arrays, theta, z)
    noise = jax.random.normal(key_spaxel, z.shape)
    z += jnp.einsum("sij,sj->si", inverse_root(root), noise)
    xi = solve_triangular(affine["root"], (z - centre)[..., None], lower=False)
    return {"galaxy": eta, "spaxel": xi[..., 0]}

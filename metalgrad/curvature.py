"""The curvature of a hierarchical posterior at a mode of it.

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
from jaxtyping import Array, Float

from metalgrad import settled
from metalgrad.collapse import collapse
from metalgrad.hierarchy import Hierarchy
from metalgrad.modes import STARTS, find_branches

LEAST = 1e-2  # curvature, where the prior's is 1


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


@partial(jax.jit, static_argnums=0)
def _bend_of_peaks(hierarchy, arrays, theta):
    return jax.hessian(hierarchy.peaks, argnums=1)(arrays, theta)


@partial(jax.jit, static_argnums=0)
def _spaxel_map(hierarchy, arrays, coordinates, theta, z):
    """Find what is still, how it moves with ``theta``, and roots of its covariances.

    The curvature is Gauss and Newton's, as if residuals were linear: a mode that is
    flatter is so for a short way, to where the posterior bends as ever or has another
    mode, and steps that are long there are too long.
    """
    # What is not told is left where it is by `settled.place`.
    still = jnp.where(hierarchy.locate(arrays, theta, z)[1] == 0, z, 0.0)

    def potential(theta, still):
        z, log_volume = settled.place(hierarchy, arrays, coordinates, theta, still)
        return hierarchy.potential(arrays, theta, z) - log_volume

    def residuals(still):
        z, _ = settled.place(hierarchy, arrays, coordinates, theta, still)
        return jnp.concatenate([hierarchy.residuals(arrays, theta, z), z], axis=1)

    def bend(unit):
        """How the slope changes along one of the galaxy's parameters."""
        return jax.jvp(lambda t: jax.grad(potential, 1)(t, still), (theta,), (unit,))[1]

    def push(unit):
        """How residuals change along one latent of every spaxel."""
        step = jnp.broadcast_to(unit, still.shape)
        return jax.jvp(residuals, (still,), (step,))[1]

    cross = jnp.moveaxis(jax.lax.map(bend, jnp.eye(len(theta))), 0, -1)
    pushed = jax.lax.map(push, jnp.eye(still.shape[1]))
    value, axes = jnp.linalg.eigh(jnp.einsum("isr,jsr->sij", pushed, pushed))
    root = axes / jnp.sqrt(jnp.maximum(value, LEAST))[:, None]
    bridge = -root @ (root.swapaxes(1, 2) @ cross)
    return still, jnp.where(hierarchy.is_signed, 0.0, bridge), root


def expand(hierarchy: Hierarchy, arrays, key, starts: int = STARTS) -> Expansion:
    """Find the best mode, as `find_branches` does, and the curvature there."""
    return expand_about(
        hierarchy, arrays, *find_branches(hierarchy, arrays, key, starts)[0]
    )


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
    still, bridge, root = _spaxel_map(hierarchy, arrays, coordinates, theta, z)
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

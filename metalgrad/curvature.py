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

from metalgrad import settled, whitening
from metalgrad.collapse import collapse
from metalgrad.hierarchy import Hierarchy
from metalgrad.krylov import LEAST

STEPS = 4  # of Newton in spaxels, from near their modes


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
    steady : dict, optional
        What ``z`` are coordinates of: those of `steady.place` where all spaxels are one
        unit, and of `settled.place` where each is one.
    """

    theta: Float[Array, " galaxy"]
    z: Float[Array, "unit latent"]
    stretch: Float[Array, "galaxy galaxy"]
    bridge: Float[Array, "unit latent galaxy"]
    root: Float[Array, "unit latent latent"] | None
    steady: dict | None = None

    @property
    def arrays(self) -> dict:
        """The map's arrays, to pass through a compiled function."""
        names = ("theta", "z", "stretch", "bridge", "root", "steady")
        arrays = {name: getattr(self, name) for name in names}
        return {name: value for name, value in arrays.items() if value is not None}


@partial(jax.jit, static_argnums=0)
def _bend_of_peaks(hierarchy, arrays, theta):
    return jax.hessian(hierarchy.peaks, argnums=1)(arrays, theta)


@partial(jax.jit, static_argnums=0)
def _spaxel_roots(hierarchy, arrays, coordinates, theta, still):
    """Find roots of the covariances of what is still.

    The curvature is Gauss and Newton's, as if residuals were linear: a mode that is
    flatter is so for a short way, to where the posterior bends as ever or has another
    mode, and steps that are long there are too long.
    """

    def residuals(still):
        z, _ = settled.place(hierarchy, arrays, coordinates, theta, still)
        return jnp.concatenate([hierarchy.residuals(arrays, theta, z), z], axis=1)

    def push(unit):
        """How residuals change along one latent of every spaxel."""
        step = jnp.broadcast_to(unit, still.shape)
        return jax.jvp(residuals, (still,), (step,))[1]

    pushed = jax.lax.map(push, jnp.eye(still.shape[1]))
    value, axes = jnp.linalg.eigh(jnp.einsum("isr,jsr->sij", pushed, pushed))
    return axes / jnp.sqrt(jnp.maximum(value, LEAST))[:, None]


@partial(jax.jit, static_argnums=0)
def _quieten(hierarchy, arrays, theta, z):
    """Return what is still at a mode: `settled.place` leaves what is not told."""
    return jnp.where(hierarchy.locate(arrays, theta, z)[1] == 0, z, 0.0)


def _bridge(hierarchy, arrays, affine):
    """How what is still moves with ``theta``, (unit, latent, galaxy)."""
    root, count = np.asarray(affine["root"]), affine["theta"].size
    identity = np.broadcast_to(np.eye(root.shape[-1]), root.shape)
    none = jnp.zeros((*affine["z"].shape, count))
    plain = affine | {"root": jnp.asarray(identity), "bridge": none}
    along = np.eye(count, count + affine["z"].size)
    cross = whitening.steepen(hierarchy, arrays, plain, along)[:, count:]
    cross = np.linalg.solve(np.asarray(affine["stretch"]).T, cross)
    cross = np.moveaxis(cross.reshape(count, *affine["z"].shape), 0, -1)
    bridge = -root @ (root.swapaxes(1, 2) @ cross)
    return jnp.asarray(np.where(hierarchy.is_signed, 0.0, bridge))


def blank(hierarchy: Hierarchy, arrays) -> dict:
    """Return arrays of the shapes of `expand_about`'s, about nothing in particular."""
    (galaxy, latent), units = hierarchy.sizes, len(arrays["white"])
    theta, z = jnp.zeros(galaxy), jnp.zeros((units, latent))
    return {
        "theta": theta,
        "z": z,
        "stretch": jnp.eye(galaxy),
        "bridge": jnp.zeros((units, latent, galaxy)),
        "root": jnp.zeros((units, latent, latent)),
        "steady": settled.find(hierarchy, arrays, theta, z),
    }


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
    still = _quieten(hierarchy, arrays, theta, z)
    root = _spaxel_roots(hierarchy, arrays, coordinates, theta, still)
    stretch = axes / jnp.sqrt(value)
    affine = {"theta": theta, "z": still, "stretch": stretch, "root": root}
    bridge = _bridge(hierarchy, arrays, affine | {"steady": coordinates})
    return Expansion(theta, still, stretch, bridge, root, coordinates)


def finite_hessian(hierarchy, arrays, theta, z, step: float = 3e-3):
    """Hessian of the collapsed potential from differences of its gradient."""
    columns = []
    for unit in step * np.eye(len(theta)):
        ahead = collapse(hierarchy, arrays, theta + unit, z, STEPS)[1]
        behind = collapse(hierarchy, arrays, theta - unit, z, STEPS)[1]
        columns.append((ahead - behind) / (2 * step))
    hessian = jnp.stack(columns)
    return (hessian + hessian.T) / 2

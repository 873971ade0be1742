"""Galaxies and data drawn from a model as it stands, to hold its inference against.

Parameters come from the prior, departures from their standard normals, and data from
the distribution that the model conditions on: whitened fluxes, and the χ² of the
channels that tell the noise scale.  Everything else (positions, errors, the light's
scene, and the pivot and typical fluxes about which priors are centred) is a template's
and stays: were it found anew in every replica, prior and data would not be those of
one joint distribution.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import handlers

from metalgrad.hierarchy import Hierarchy
from metalgrad.likelihood import LineLikelihood, find_told
from metalgrad.observation import LineData

LOG_LIKELIHOOD = "log_likelihood"  # of all data, given all latents
TRIES = 1000  # galaxies, of which one should be such as are observed
LEAST = 1e-6  # degrees of freedom, of what has none


class Replica(NamedTuple):
    """One galaxy of the prior, and what would be seen of it.

    Attributes
    ----------
    truth : dict of str to numpy.ndarray
        The galaxy's parameters, as a record names them, what follows from them, and
        ``log_likelihood``, which hangs on departures and data, too (Modrák et al.
        2023, arXiv:2211.02383: ranks of parameters alone cannot tell a posterior from
        the prior).
    arrays : dict
        As `LineLikelihood.arrays`.
    """

    truth: dict
    arrays: dict


def replicate(hierarchy: Hierarchy, arrays: dict, key) -> Replica:
    """Draw a galaxy and its data.

    Parameters
    ----------
    hierarchy : Hierarchy
    arrays : dict
        `LineLikelihood.arrays` of the template.
    key : jax.Array
    """
    sites, drawn = _draw(hierarchy, arrays, key)
    truth = {name: np.asarray(value) for name, value in sites.items()}
    return Replica(truth, arrays | drawn)


def replicate_within(
    hierarchy: Hierarchy, arrays: dict, key, brightest: float
) -> tuple[Replica, int]:
    """Draw galaxies, each with its data, until one is of those that are observed.

    Which those are hangs on the data alone: given them a truth is a draw of the
    posterior as before, and its rank uniform.

    Parameters
    ----------
    hierarchy, arrays, key
        As for `replicate`.
    brightest : float
        S/N that no whitened flux of any spaxel exceeds.

    Returns
    -------
    replica : Replica
    passed : int
        How many galaxies were passed over.

    Raises
    ------
    ValueError
        If there is none among a thousand.
    """
    for passed in range(TRIES):
        replica = replicate(hierarchy, arrays, jax.random.fold_in(key, passed))
        if np.abs(replica.arrays["white"]).max() <= brightest:
            return replica, passed
    raise ValueError(
        f"every one of {TRIES} galaxies of the prior has a spaxel with a line above "
        f"S/N {brightest:g}; raise brightest, or lend errors that are larger"
    )


def check_template(data: LineLikelihood) -> None:
    """Refuse a template of whose data no distribution is known.

    Raises
    ------
    ValueError
        If somewhere fewer channels are counted than line fluxes were found from them.
    """
    short = np.argwhere(spare_channels(data) < -LEAST)
    if len(short):
        spaxel, number = short[0]
        raise ValueError(
            f"spaxel {spaxel} has fewer channels than lines in the complex "
            f"{data.labels[number]} (dof {float(data.dof[spaxel, number]):g}), so that "
            "no data can be drawn for it; leave it out of the template"
        )


def spare_channels(data: LineLikelihood) -> Float[Array, "spaxel complex"]:
    """Count degrees of freedom that line fluxes leave: those of ``misfit``."""
    told = jnp.any(jnp.asarray(data.root) != 0, axis=-1)
    owner = np.eye(len(data.complexes))[data.row_complex]
    return jnp.asarray(data.dof) - told @ owner


def draw_misfit(data: LineLikelihood, noise_scale, key):
    """Draw χ² of the best fluxes: of the noise in the channels that they leave.

    ``dof`` counts all channels less the continuum's, and each whitened flux is one of
    them, so that what is left is κ² times a χ² of ``dof`` less the fluxes' number.
    """
    spare = spare_channels(data)
    gamma = jax.random.gamma(key, jnp.maximum(spare, LEAST) / 2)
    return jnp.where(spare > LEAST, 2 * gamma * noise_scale**2, 0.0)


@partial(jax.jit, static_argnums=0)
def _draw(hierarchy, arrays, key):
    data, keys = hierarchy.data.with_arrays(arrays), jax.random.split(key, 3)
    seeded = handlers.seed(hierarchy.model, keys[0])
    trace = handlers.trace(seeded).get_trace(data)
    seen = trace["data"]["fn"]
    drawn = {
        "white": seen.sample(keys[1]),
        "misfit": draw_misfit(data, seen.noise_scale, keys[2]),
    }
    again = LineData(
        data.with_arrays(arrays | drawn), seen.flux, seen.noise_scale, seen.clumpiness
    )
    names = (*hierarchy.galaxy_names, *hierarchy.derived)
    drawn["told"] = find_told(data.root, drawn["white"])  # moves no prior
    sites = {name: trace[name]["value"] for name in names}
    sites[LOG_LIKELIHOOD] = jnp.sum(again.log_prob(drawn["white"]))
    return sites, drawn

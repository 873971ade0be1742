"""Leave whole regions of a galaxy out, and ask how well the rest foretells them.

Spaxels share light and noise with their neighbours, which foretell a spaxel that is
left out alone whether the model is right or not.  An annulus, or a block wider than the
PSF, is news.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import partial

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.scipy.special import logsumexp
from threadpoolctl import threadpool_limits
from xarray import DataArray

from metalgrad import checks, collapse, pilot
from metalgrad.branches import sample, unseen
from metalgrad.hierarchy import Hierarchy
from metalgrad.inference import NIRSPEC, prepare, set_up
from metalgrad.krylov import LEAST
from metalgrad.likelihood import TOLD
from metalgrad.psf import PSF, ImagePSF
from metalgrad.record import saturated

LOOKS = 100  # draws, of all chains, at which waves are integrated out
# ArviZ before 1.3 has one class for all kinds of leaving out.
KIND = [("kind", str, field(default="loo_kfold")), ("good_k", float, field(default=1))]
OLD = {"bases": (arviz_stats.ELPDData,), "kw_only": True, "repr": False}
KFold = getattr(arviz_stats, "ELPDDataLOOKFold", None) or make_dataclass(
    "KFold", KIND, **OLD
)
STEPS = 5  # of Newton, from a spaxel's mode at one draw to that at another
MC_ERROR = 0.3  # nats; beyond it draws are too few


@dataclass(kw_only=True, repr=False)
class GroupsOut(KFold):
    """How well a model foretells groups of spaxels; ArviZ takes it as its own.

    ``elpd_i``, (group,), is the joint log density of each group's data given all
    others, relative to that of the group's own best fluxes.  ``p`` is unknown.

    Attributes
    ----------
    unit : str
        What is left out at a time.
    groups : array of int, (spaxel,)
    mc_error : DataArray, (group,)
        Monte Carlo error of ``elpd_i``; at 1 a single draw says it all.
    data : dict
        Which data these are, as `metalgrad.comparison.identify` has it.
    """

    good_k: float | None = None  # ArviZ annotates a float
    unit: str
    groups: np.ndarray
    mc_error: DataArray
    data: dict


def leave_groups_out(
    model,
    data,
    groups: DataArray | np.ndarray | Sequence[int],
    *,
    seed: int,
    psf: PSF | ImagePSF | None = NIRSPEC,
    slice_angle: float | None = None,
    warmup: int = 300,
    draws: int | None = None,
    chains: int = 4,
    target_accept: float = 0.8,
    progress: bool = True,
) -> GroupsOut:
    """Fit without each group of spaxels in turn, and foretell it as a whole.

    Latents of what is left out are integrated out: a spaxel's own by importance
    sampling, waves, which hold on to the rest, by Laplace's method with the group's
    data and without.  The data centre the priors of brightness and level, once for all
    fits.

    Parameters
    ----------
    model : Model
    data : Spaxels, LineMaps or LineLikelihood
    groups : array of int, (spaxel,)
        The group of each spaxel, by `annuli` or `blocks`; named after what one is.
    seed, psf, slice_angle, warmup, draws, chains, target_accept, progress
        As in `metalgrad.fit`.

    Returns
    -------
    GroupsOut
        For `metalgrad.compare`, beside those of other models of the same groups.

    Raises
    ------
    ValueError
        If there is not one label per spaxel, or a single group.

    Warns
    -----
    ConvergenceWarning
        If the chains of some of the fits disagree.
    """
    prepared = prepare(model, data, psf, slice_angle)
    unit = getattr(groups, "name", None) or "group"
    groups = np.asarray(groups)
    names = np.unique(groups)
    if groups.shape != (len(prepared),) or len(names) < 2:
        raise ValueError(
            f"{len(names)} group(s) in labels of shape {groups.shape} where two or "
            f"more, of {len(prepared)} spaxels, are expected; see metalgrad.annuli"
        )
    with jax.enable_x64(new_val=True), threadpool_limits(1, "blas"):
        run, arrays = set_up(model, prepared, warmup, target_accept)
        settings = {"chains": chains, "draws": draws, "progress": progress}
        keys = random.split(random.key(seed), len(names))
        found = [
            leave_out(run, arrays, groups == name, key, **settings)
            for name, key in zip(names, keys, strict=True)
        ]
    log_density, r_hat = zip(*found, strict=True)
    warn_chains(unit, names, np.array(r_hat))
    own = np.bincount(np.searchsorted(names, groups), saturated(prepared))
    return _result(unit, groups, names, log_density, own, identity(data, prepared))


def identity(data, prepared) -> dict:
    """Tell which data a model saw, as `metalgrad.record` does."""
    flux, error = prepared.best_flux()
    return {
        "target": getattr(data, "target", ""),
        "lines": tuple(prepared.lines),
        "flux": flux,
        "error": error / np.sqrt(prepared.inflation),
        "inflation": float(prepared.inflation),
    }


def leave_out(run, arrays, out, key, *, chains: int, draws: int | None, progress: bool):
    """Fit without some spaxels, and foretell them as a whole.

    Parameters
    ----------
    run : Run
    arrays : dict
        As of `metalgrad.inference.set_up`.
    out : array of bool, (spaxel,)
        Of the data's own spaxels.
    key : jax.Array
    chains, draws, progress
        As of `metalgrad.fit`.

    Returns
    -------
    log_density : numpy.ndarray, (draw,)
        Of their data given all others, at draws of the fit.
    r_hat : float
        The largest of the galaxy's parameters.
    """
    key_mode, key_chains, key_spaxels, key_weights = random.split(key, 4)
    out = np.pad(out, (0, len(arrays["white"]) - len(out)))
    rest = _hide(arrays, out)
    affines = run.branches(rest, key_mode)
    settings = {"chains": chains, "draws": draws, "progress": progress}
    keys = key_chains, key_weights
    outcome = sample(run, rest, affines, keys, integrate=unseen, **settings)[0]
    theta, z = (np.concatenate(outcome["kept"][name]) for name in ("theta", "z"))
    if run.hierarchy.coupled:
        stride = -(-len(theta) // LOOKS)
        pairs = zip(theta[::stride], z[::stride], strict=True)
        found = [_through_waves(run.hierarchy, arrays, rest, *pair) for pair in pairs]
    else:
        pointwise = _by_spaxel(run.hierarchy, arrays, theta, key_spaxels)
        found = pointwise[:, out].sum(axis=1)
    sites = (outcome["sites"][name] for name in run.hierarchy.galaxy_names)
    flat = np.concatenate([v.reshape(*v.shape[:2], -1) for v in sites], axis=-1)
    return np.array(found), np.nanmax(checks.r_hat(flat), initial=1.0)


def _hide(arrays, out):
    """Let the data of the spaxels ``out`` say nothing; keep shapes and centres."""

    def hide(value):
        return jnp.where(out.reshape(-1, *[1] * (value.ndim - 1)), 0.0, value)

    return arrays | {name: hide(arrays[name]) for name in TOLD}


def _by_spaxel(hierarchy: Hierarchy, arrays, theta, key):
    """Log density of each spaxel at each draw, its latents integrated out."""
    key_start, key_noise = random.split(key)
    noise = collapse.heavy_noise(key_noise, (len(arrays["white"]), hierarchy.sizes[1]))
    start = _start(hierarchy, arrays, theta.mean(axis=0), key_start)
    return np.asarray(_integrate(hierarchy, arrays, theta, start, noise))


@partial(jax.jit, static_argnums=0)
def _start(hierarchy, arrays, theta, key):
    z = collapse.scatter_start(hierarchy, arrays, theta, key)
    return collapse.relax(hierarchy, arrays, theta, z, 2 * STEPS)


@partial(jax.jit, static_argnums=0)
def _integrate(hierarchy, arrays, theta, start, noise):
    def one(theta):
        z = collapse.relax(hierarchy, arrays, theta, start, STEPS)
        return collapse.spaxel_evidence(hierarchy, arrays, theta, z, noise)

    return jax.lax.map(one, theta)


def _through_waves(hierarchy: Hierarchy, arrays, rest, theta, z):
    """Log density of what ``rest`` lacks given the rest, waves integrated out."""
    below, z = wave_evidence(hierarchy, rest, theta, z)
    return wave_evidence(hierarchy, arrays, theta, z)[0] - below


def wave_evidence(hierarchy: Hierarchy, arrays, theta, z):
    """Integrate waves out by Laplace's method, but for a constant.

    Draws of waves would not do: those that the rest allows seldom come near what a
    bright region tells of them.

    Returns
    -------
    log_evidence : float
    z : array, (1, latent)
        The mode.
    """
    free = np.arange(theta.size + z.size) >= theta.size
    theta, z = pilot.descend(hierarchy, arrays, theta, z, free)
    value, slope, hessian = map(np.asarray, _bend(hierarchy, arrays, theta, z))
    bend, axes = np.linalg.eigh(hessian)
    bend = np.maximum(np.abs(bend), LEAST)
    short = 0.5 * np.sum((axes.T @ slope) ** 2 / bend)  # of the mode
    return float(short - value - 0.5 * np.sum(np.log(bend))), z


@partial(jax.jit, static_argnums=0)
def _bend(hierarchy, arrays, theta, z):
    """Potential, slope and curvature in the waves."""

    def potential(point):
        return hierarchy.potential(arrays, theta, point[None])

    def column(unit):
        return jax.jvp(jax.grad(potential), (z[0],), (unit,))[1]

    value, slope = jax.value_and_grad(potential)(z[0])
    return value, slope, jax.lax.map(column, jnp.eye(z.size), batch_size=32)


def warn_chains(unit: str, names, r_hat: np.ndarray) -> None:
    """Warn of what could be left out only by chains that disagree."""
    bad = r_hat > checks.R_HAT[1]
    if bad.any():
        warnings.warn(
            f"without {unit} {', '.join(map(str, names[bad]))} the chains disagree: "
            f"R-hat is up to {r_hat.max():.3g} (want at most {checks.R_HAT[1]}); run "
            "longer",
            checks.ConvergenceWarning,
            stacklevel=3,
        )


def _result(unit, groups, names, log_density, own, data):
    """Average over draws, and put into ArviZ's terms."""
    count = np.array([len(values) for values in log_density])
    elpd_i = np.array([float(logsumexp(values)) for values in log_density])
    elpd_i -= np.log(count) + own
    weights = [np.exp(values - np.max(values)) for values in log_density]
    error = np.array([np.std(w) / np.mean(w) for w in weights]) / np.sqrt(count)
    coords = {unit: names}
    return GroupsOut(
        elpd=float(elpd_i.sum()),
        se=float(np.sqrt(len(names) * np.var(elpd_i))),
        p=np.nan,
        n_samples=int(count.min()),
        n_data_points=len(names),
        scale="log",
        warning=bool(np.any(error > MC_ERROR)),
        elpd_i=DataArray(elpd_i, coords, [unit]),
        n_folds=len(names),
        unit=unit,
        groups=groups,
        mc_error=DataArray(error, coords, [unit]),
        data=data,
    )

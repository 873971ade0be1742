"""Fit a model: data of any kind in, the posterior as an ArviZ tree out."""

from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import random
from threadpoolctl import threadpool_limits

from metalgrad import collapse, lines
from metalgrad.branches import sample
from metalgrad.chains import Run
from metalgrad.checkpoint import UNSAVED, Checkpoint
from metalgrad.checks import examine, verdict_attrs, warn
from metalgrad.compression import correlated
from metalgrad.densities import split_density
from metalgrad.fingerprint import fingerprint
from metalgrad.foretell import foretell
from metalgrad.hierarchy import Hierarchy, split
from metalgrad.likelihood import LineLikelihood, from_line_maps
from metalgrad.linemaps import LineMaps
from metalgrad.model import Model
from metalgrad.padding import pad, trim
from metalgrad.psf import PSF, ImagePSF, nirspec, orient
from metalgrad.record import record
from metalgrad.scene import Scene, lay_out
from metalgrad.solutions import tell_branches
from metalgrad.spaxels import Spaxels
from metalgrad.starts import prior_sd
from metalgrad.threads import side_by_side

NIRSPEC = nirspec()
FORETOLD = 400  # draws, of all chains, at which all spaxels are foretold
LEAST_MAP = 4  # rows and columns that neighbours need to share anything


def likelihood(data, psf=NIRSPEC, slice_angle=None, *, scales=(1.0,)) -> LineLikelihood:
    """Turn any kind of data into a Gaussian likelihood of line fluxes.

    Noise is correlated as the line-free channels say, and a cube's likelihood knows
    where its light comes from, too.

    Parameters
    ----------
    data : Spaxels, LineMaps or LineLikelihood
    psf, slice_angle
        As for `fit`.
    scales : tuple of float
        As for `metalgrad.scene.lay_out`.
    """
    if isinstance(data, LineMaps):
        _refuse_to_blur(psf, slice_angle)
        return from_line_maps(data)
    if not isinstance(data, Spaxels):
        return data
    compressed = correlated(data)[0]
    sides = np.ptp(data.index, axis=0) + 1
    if data.pixel_scale is None or sides.min() < LEAST_MAP:
        return compressed
    told = data.slice_angle if slice_angle is None else slice_angle
    psf, angle = orient(psf, told)
    observed = lines.wavelengths(compressed.lines) * (1 + data.redshift)
    about = {"angle": angle, "scales": scales}
    scene = lay_out(data, compressed.signal(), observed, psf, **about)
    return replace(compressed, scene=scene)


def _refuse_to_blur(psf, slice_angle):
    """Refuse a PSF where there is no map to be blurred by it."""
    if psf not in (NIRSPEC, None) or slice_angle is not None:
        raise ValueError(
            "psf or slice_angle given with line fluxes, which have no light around "
            "them to be blurred: leave it out, and bin them to resolution elements"
        )


def prepare(model, data, psf=NIRSPEC, slice_angle=None) -> LineLikelihood:
    """Turn any kind of data into what a model is conditioned on.

    Parameters
    ----------
    model : Model
    data, psf, slice_angle
        As for `fit`.
    """
    scales = model.texture.psf_scales
    return model.prepare(likelihood(data, psf, slice_angle, scales=scales))


def fit(
    model,
    data,
    *,
    seed: int,
    psf: PSF | ImagePSF | None = NIRSPEC,
    slice_angle: float | None = None,
    warmup: int = 300,
    draws: int | None = None,
    chains: int = 4,
    target_accept: float = 0.8,
    progress: bool = True,
    checkpoint: str | Path | None = None,
):
    """Draw from the posterior of a galaxy's metallicity field.

    A Gaussian approximation of the posterior is found first; the chains start from it
    and run in its coordinates, in double precision.

    Parameters
    ----------
    model : Model
    data : Spaxels, LineMaps or LineLikelihood
    seed : int
        Of all randomness.
    psf : PSF, ImagePSF or None
        Of a cube; None for light that is seen where it is emitted.  By default that of
        NIRSpec's IFU (D'Eugenio et al. 2023).  Fewer than four rows or columns of
        spaxels are taken as they are: every one departs for itself, without a PSF.
    slice_angle : float, optional
        Position angle of the IFU's slices in the frame of the map [deg], as in
        `PSF.kernel`; by default as the cube's header tells.  Where it does not a round
        PSF of the same area is taken.
    warmup, chains : int
    draws : int, optional
        Of each chain, after warm-up.  By default as many as are needed: 250, and where
        chains disagree or are worth too few draws (R-hat above 1.01, or fewer than 100
        effective draws a chain, of the galaxy's parameters or of the metallicity map)
        500 or, at most, 1000; 1000 where there are two solutions.
    target_accept : float
    progress : bool
        Whether to show a progress bar.
    checkpoint : str or path, optional
        Folder in which to keep what the fit has come to, every few seconds: the same
        call goes on from there after a kill, and ends with the same draws.  It is not
        removed at the end.

    Returns
    -------
    xarray.DataTree
        ``posterior`` (``slope``, ``central``, ``scatter``, ``metallicity``, ...),
        ``sample_stats``, ``log_likelihood`` (per spaxel, with the spaxel's own latents
        integrated out, of some draws for cubes: see `metalgrad.leave_one_out`),
        ``log_prior`` (of each of the galaxy's parameters), ``total_log_likelihood`` (of
        all data, given all latents, of every nth draw), ``posterior_predictive``,
        ``observed_data`` and ``constant_data``.

    Raises
    ------
    TypeError
        If model or data are none, or a number of iterations is no integer.
    ValueError
        If the data can form no ratio of the model's calibration or are line fluxes
        that no PSF can blur, the checkpoint is that of another fit, or there are no
        chains, warm-up or draws.

    Warns
    -----
    ConvergenceWarning
        For each thing that `metalgrad.checks.diagnose` finds wrong.
    UserWarning
        If the checkpoint cannot be written; the fit goes on.
    """
    _check(model, data, warmup=warmup, draws=draws, chains=chains)
    given = {"model": model, "data": data, "psf": psf, "slice_angle": slice_angle}
    given |= {"seed": seed, "warmup": warmup, "draws": draws, "chains": chains}
    kept = _keep(checkpoint, given | {"target_accept": target_accept})
    prepared = prepare(model, data, psf, slice_angle)
    keys = random.split(random.key(seed), 4)
    # Chains have a thread each; those of LAPACK would only stand in their way.
    with jax.enable_x64(new_val=True), threadpool_limits(1, "blas"):
        run, arrays = set_up(model, prepared, warmup, target_accept)
        affines = run.branches(arrays, keys[0], kept)
        integrate = partial(integrate_spaxels, run.hierarchy, arrays, key=keys[2])
        settings = {"chains": chains, "draws": draws, "progress": progress}
        outcome, marginal, told = sample(
            run, arrays, affines, keys[1::2], integrate=integrate, kept=kept, **settings
        )
        widths = prior_sd(run.hierarchy, arrays)
        apart = split_density(run.hierarchy, arrays, outcome)
    outcome, marginal = trim(outcome, marginal, len(prepared))
    posterior = record(
        model, data, prepared, outcome | apart, marginal, prior_sd=widths, seed=seed
    )
    if told is not None:
        tell_branches(posterior, *told)
    criteria = examine(posterior)
    posterior.attrs |= verdict_attrs(criteria)
    warn(posterior, criteria)
    return posterior


def _check(model, data, **counts):
    """Refuse what is no model, no data or no number before any work is done."""
    if not isinstance(model, Model):
        raise TypeError(
            f"the model is a {type(model).__name__} ({model!r:.60}) where a Model is "
            "expected; see metalgrad.load_model"
        )
    if not isinstance(data, Spaxels | LineMaps | LineLikelihood):
        raise TypeError(
            f"the data are a {type(data).__name__} where Spaxels or LineMaps are "
            "expected; see Spaxels.select of a cube, and LineMaps.from_table"
        )
    for name, count in counts.items():
        if name == "draws" and count is None:
            continue
        if not isinstance(count, int | np.integer):
            raise TypeError(f"{name} is {count!r}; give an integer")
        if count < 1:
            raise ValueError(f"{name} is {count}; give 1 or more")


def _keep(folder, given):
    """Open a fit's checkpoint, if there is to be one."""
    return UNSAVED if folder is None else Checkpoint(folder, fingerprint(**given))


class Shape(NamedTuple):
    """What a compiled program depends on: not the data, but their shape."""

    lines: tuple
    complexes: tuple
    spaxels: int
    has_channels: bool
    scene: tuple | None = None

    @classmethod
    def of(cls, data: LineLikelihood) -> "Shape":
        """Return the shape of ``data``."""
        scene = None if data.scene is None else data.scene.sizes
        return cls(data.lines, data.complexes, len(data), data.has_channels, scene)

    def blank(self) -> LineLikelihood:
        """Return data of this shape that say nothing."""
        lines, complexes, count = len(self.lines), len(self.complexes), self.spaxels
        return LineLikelihood(
            lines=self.lines,
            complexes=self.complexes,
            root=np.broadcast_to(np.eye(lines), (count, lines, lines)),
            white=np.zeros((count, lines)),
            misfit=np.zeros((count, complexes)),
            dof=np.zeros((count, complexes)),
            log_norm=np.zeros(count),
            position=np.zeros((count, 2)),
            has_channels=self.has_channels,
            scene=None if self.scene is None else Scene.blank(self.scene),
        )


@lru_cache(maxsize=8)
def machine(model, shape: Shape, warmup: int, target_accept: float) -> "Run":
    """Keep what was compiled for the next galaxy of the same shape."""
    return Run(split(model, shape.blank()), warmup, target_accept)


def set_up(model, prepared: LineLikelihood, warmup: int, target_accept: float):
    """Find the machine for data with room for a few spaxels more, as `pad` makes it.

    Returns
    -------
    run : Run
    arrays : dict
        `LineLikelihood.arrays`; spaxels that were added are the last.
    """
    roomy = pad(prepared)
    return machine(model, Shape.of(roomy), warmup, target_accept), roomy.arrays


@partial(jax.jit, static_argnums=0)
def _integrate(hierarchy: Hierarchy, arrays, noise, theta, z):
    return collapse.spaxel_evidence(hierarchy, arrays, theta, z, noise)


def integrate_spaxels(hierarchy, arrays, affine, outcome, key):
    """Log likelihood of each spaxel at some draws, for leave-one-out.

    A spaxel's own latents are integrated out; where all spaxels hang together, all
    latents are, given the data of the others (`foretell`).

    Returns
    -------
    marginal : numpy.ndarray, (chain, draw, spaxel)
    stride : int
        At every so many of the kept draws.
    """
    theta, z = outcome["kept"]["theta"], outcome["kept"]["z"]
    stride = -(-theta[..., 0].size // FORETOLD) if hierarchy.coupled else 1
    if hierarchy.coupled:
        look = partial(foretell, hierarchy, arrays, affine["steady"])
    else:
        noise = collapse.heavy_noise(key, z.shape[2:])
        look = partial(_integrate, hierarchy, arrays, noise)
    some = theta[:, ::stride], z[:, ::stride]
    each = [draws.reshape(-1, *draws.shape[2:]) for draws in some]
    found = np.stack([np.asarray(one) for one in side_by_side(look, *each)])
    return found.reshape(*some[0].shape[:2], -1), stride

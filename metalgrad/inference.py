"""Fit a model: NUTS in coordinates where the posterior is nearly a sphere."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro.infer.hmc import hmc
from tqdm.auto import tqdm

from metalgrad import collapse, curvature, lines, pilot
from metalgrad.checks import warn
from metalgrad.compression import correlated
from metalgrad.hierarchy import Hierarchy, split
from metalgrad.likelihood import LineLikelihood, from_line_maps
from metalgrad.linemaps import LineMaps
from metalgrad.psf import PSF, ImagePSF, nirspec
from metalgrad.record import MAPS, record
from metalgrad.scene import Scene, lay_out
from metalgrad.spaxels import Spaxels

NIRSPEC = nirspec()
LEAST_MAP = 4  # rows and columns that neighbours need to share anything
CHUNK = 25  # iterations between two looks at the progress bar
PILOT = 200  # iterations of the chain that finds the coordinates of others
KEPT = 1000  # draws, of all chains, for which spaxels are integrated out
STATISTICS = {
    "energy": "energy",
    "lp": "potential_energy",
    "tree_steps": "num_steps",
    "acceptance_rate": "accept_prob",
    "diverging": "diverging",
}


def likelihood(data, psf=NIRSPEC, slice_angle=None) -> LineLikelihood:
    """Turn any kind of data into a Gaussian likelihood of line fluxes.

    Noise is correlated as the line-free channels say, and a cube's likelihood knows
    where its light comes from, too.

    Parameters
    ----------
    data : Spaxels, LineMaps or LineLikelihood
    psf, slice_angle
        As for `fit`.
    """
    if isinstance(data, LineMaps):
        return from_line_maps(data)
    if not isinstance(data, Spaxels):
        return data
    compressed = correlated(data)[0]
    if data.pixel_scale is None or np.ptp(data.index, axis=0).min() < LEAST_MAP:
        return compressed
    if psf is not None and slice_angle is None:
        psf = psf.rounded() if isinstance(psf, PSF) else psf
    observed = lines.wavelengths(compressed.lines) * (1 + data.redshift)
    scene = lay_out(data, compressed.signal(), observed, psf, angle=slice_angle or 0.0)
    return replace(compressed, scene=scene)


def fit(
    model,
    data,
    *,
    seed: int,
    psf: PSF | ImagePSF | None = NIRSPEC,
    slice_angle: float | None = None,
    warmup: int = 500,
    draws: int = 1000,
    chains: int = 4,
    target_accept: float = 0.9,
    progress: bool = True,
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
        NIRSpec's IFU (D'Eugenio et al. 2023).
    slice_angle : float or None
        Position angle of the IFU's slices in the frame of the map [deg], as in
        `PSF.kernel`; where it is not known a round PSF of the same area is taken.
    warmup, draws, chains : int
    target_accept : float
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    xarray.DataTree
        ``posterior`` (``slope``, ``central``, ``scatter``, ``metallicity``, ...),
        ``sample_stats``, ``log_likelihood`` (per spaxel, with the spaxel's own latents
        integrated out, so that ``az.loo`` is valid), ``posterior_predictive``,
        ``observed_data`` and ``constant_data``.

    Raises
    ------
    ValueError
        If the data can form no ratio of the model's calibration.

    Warns
    -----
    ConvergenceWarning
        For each thing that `metalgrad.checks.diagnose` finds wrong.
    """
    prepared = model.prepare(likelihood(data, psf, slice_angle))
    keys = random.split(random.key(seed), 4)
    with jax.enable_x64(new_val=True):
        run = _machine(model, Shape.of(prepared), warmup, target_accept)
        arrays = prepared.arrays
        expansion = run.expand(arrays, keys[0])
        outcome = run.chains(
            random.split(keys[1], chains), arrays, expansion.arrays, draws, progress
        )
        marginal = integrate_spaxels(run.hierarchy, arrays, outcome, keys[2])
        prior_sd = run.hierarchy.prior_sd()
    posterior = record(
        model, data, prepared, outcome, marginal, prior_sd=prior_sd, seed=seed
    )
    warn(posterior)
    return posterior


class Shape(NamedTuple):
    """What a compiled program depends on: not the data, but their shape."""

    lines: tuple
    complexes: tuple
    spaxels: int
    has_channels: bool
    scene: tuple | None

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
def _machine(model, shape: Shape, warmup: int, target_accept: float) -> "Run":
    """Keep what was compiled for the next galaxy of the same shape."""
    return Run(split(model, shape.blank()), warmup, target_accept)


class Run:
    """NUTS on a whitened hierarchy, compiled once and driven in chunks."""

    def __init__(self, hierarchy: Hierarchy, warmup: int, target_accept: float):
        self.hierarchy, self.warmup = hierarchy, warmup
        self.target_accept = target_accept
        self.wanted = {*hierarchy.galaxy_names, "central", *MAPS, "line_flux"}
        self._init, self._step = hmc(potential_fn_gen=self._potential, algo="NUTS")
        self.start = jax.jit(self._start)
        self.advance = jax.jit(self._advance)

    def expand(self, arrays, key) -> curvature.Expansion:
        """Find the coordinates in which to sample."""
        if not self.hierarchy.coupled:
            return curvature.expand(self.hierarchy, arrays, key)
        key_guess, key_pilot = random.split(key)
        theta, z, told = pilot.first_guess(self.hierarchy, arrays, key_guess)
        rough = pilot.expand_at(self.hierarchy, arrays, theta, z, told=told)
        path = self.explore(key_pilot, arrays, rough.arrays)
        theta, covariance = pilot.summarise(path)
        free = np.arange(sum(self.hierarchy.sizes)) >= len(theta)
        theta, z = pilot.descend(self.hierarchy, arrays, theta, z, free)
        return pilot.expand_at(self.hierarchy, arrays, theta, z, covariance)

    def explore(self, key, arrays, affine):
        """Run one short chain; return where its galaxy went, (draw, galaxy)."""
        state, path = self.start(key, arrays, affine), []
        for _ in range(0, PILOT, CHUNK):
            state, store = self.advance(state, arrays, affine, CHUNK)
            path.append(np.asarray(store["theta"]))
        return np.concatenate(path[len(path) // 2 :])

    def _potential(self, arrays, affine):
        def potential(white):
            theta, z = curvature.unwhiten(affine, white["galaxy"], white["spaxel"])
            return self.hierarchy.potential(arrays, theta, z)

        return potential

    def _start(self, key, arrays, affine):
        """Initialise a chain at a draw from the Gaussian approximation."""
        key_point, key_chain = random.split(key)
        if self.hierarchy.coupled:
            white = _sphere(key_point, affine)
        else:
            white = curvature.draw(self.hierarchy, arrays, affine, key_point)
        return self._init(
            white,
            self.warmup,
            step_size=0.1,
            dense_mass=[("galaxy",)],
            target_accept_prob=self.target_accept,
            model_args=(arrays, affine),
            rng_key=key_chain,
        )

    def _advance(self, state, arrays, affine, count):
        """Draw ``count`` (at most `CHUNK`) states; unwhiten and collect them."""

        def one(state):
            theta, z = curvature.unwhiten(affine, state.z["galaxy"], state.z["spaxel"])
            statistics = {name: getattr(state, key) for name, key in STATISTICS.items()}
            statistics["step_size"] = state.adapt_state.step_size
            sites = self.hierarchy.sites(arrays, theta, z)
            sites = {name: sites[name] for name in sites if name in self.wanted}
            return {"theta": theta, "z": z, "sites": sites, "statistics": statistics}

        def body(i, carry):
            state, store = carry
            state = self._step(state, model_args=(arrays, affine))
            put = lambda column, value: column.at[i].set(value)  # noqa: E731
            return state, jax.tree.map(put, store, one(state))

        like = jax.eval_shape(one, state)
        store = jax.tree.map(lambda s: jnp.zeros((CHUNK, *s.shape), s.dtype), like)
        return jax.lax.fori_loop(0, count, body, (state, store))

    def chains(self, keys, arrays, affine, draws: int, progress) -> dict:
        """Run one chain per key, as many at a time as there are cores.

        Returns
        -------
        dict
            Arrays with leading axes (chain, draw).
        """
        states = [self.start(key, arrays, affine) for key in keys]
        jax.block_until_ready(self.advance(states[0], arrays, affine, 0))  # compiles
        kept = max(1, KEPT // len(keys))
        with (
            tqdm(
                total=len(keys) * (self.warmup + draws),
                disable=not progress,
                unit="draw",
            ) as bar,
            ThreadPoolExecutor(min(len(keys), os.cpu_count() or 1)) as pool,
        ):

            def chain(state):
                with jax.enable_x64(new_val=True):  # a thread begins with the default
                    return self._chain(state, arrays, affine, draws, kept, bar)

            return jax.tree.map(
                lambda *chains: np.stack(chains), *pool.map(chain, states)
            )

    def _chain(self, state, arrays, affine, draws, kept, bar):
        """Run one chain to its end; keep every latent only of some draws."""
        collected, stride = [], max(1, draws // kept)
        for start in range(0, self.warmup, CHUNK):
            count = min(CHUNK, self.warmup - start)
            state, _ = self.advance(state, arrays, affine, count)
            bar.update(count)
        for start in range(0, draws, CHUNK):
            count = min(CHUNK, draws - start)
            state, store = self.advance(state, arrays, affine, count)
            chunk = jax.tree.map(lambda x, n=count: np.asarray(x[:n]), store)
            collected.append(_thin(chunk, start, stride))
            bar.update(count)
        return jax.tree.map(lambda *parts: np.concatenate(parts), *collected)


def _sphere(key, affine):
    """White noise for galaxy and latents, not too far out."""
    keys = random.split(key)
    shapes = {"galaxy": affine["theta"].shape, "spaxel": affine["z"].shape}
    return {
        name: 0.5 * random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def _thin(chunk, done, stride):
    """Keep spaxel maps in single precision, and all latents of every nth draw."""
    count = len(chunk["theta"])
    some = np.arange(-done % stride, count, stride)
    sites = chunk["sites"]
    flux = sites.pop("line_flux")
    return {
        "sites": {name: _single(value) for name, value in sites.items()},
        "statistics": chunk["statistics"],
        "kept": {
            "theta": chunk["theta"][some],
            "z": chunk["z"][some],
            "line_flux": flux[some],
        },
    }


def _single(value):
    return value.astype(np.float32) if value.ndim > 2 or value.shape[-1] > 50 else value


@partial(jax.jit, static_argnums=0)
def _look_at_each(hierarchy: Hierarchy, arrays, theta, z):
    return jax.lax.map(lambda p: hierarchy.pointwise(arrays, *p), (theta, z))


@partial(jax.jit, static_argnums=0)
def _integrate(hierarchy: Hierarchy, arrays, theta, z, noise):
    def one(point):
        return collapse.spaxel_evidence(hierarchy, arrays, *point, noise)

    return jax.lax.map(one, (theta, z))


def integrate_spaxels(hierarchy, arrays, outcome, key):
    """Log likelihood of each spaxel at the kept draws, its own latents integrated out.

    Where all spaxels hang together none has latents of its own but its clump, which
    the likelihood integrates out already.

    Returns
    -------
    numpy.ndarray, (chain, draw, spaxel)
    """
    theta, z = outcome["kept"]["theta"], outcome["kept"]["z"]
    if hierarchy.coupled:
        pairs = zip(theta, z, strict=True)
        parts = [_look_at_each(hierarchy, arrays, *map(jnp.asarray, p)) for p in pairs]
        return np.stack([np.asarray(part) for part in parts])
    noise = collapse.heavy_noise(key, z.shape[2:])
    parts = [
        _integrate(hierarchy, arrays, jnp.asarray(t), jnp.asarray(latents), noise)
        for t, latents in zip(theta, z, strict=True)
    ]
    return np.stack([np.asarray(part) for part in parts])

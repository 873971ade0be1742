"""The galaxies that samplers are timed on: a table of spectra, and a mock cube."""

from dataclasses import dataclass, replace

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers

from metalgrad import continuum
from metalgrad.compression import compress
from metalgrad.cubes import Cube
from metalgrad.inference import Shape, prepare
from metalgrad.likelihood import LineLikelihood
from metalgrad.lsf import prism
from metalgrad.model import Model, load_model
from metalgrad.simulate import PIXEL, simulate
from metalgrad.spaxels import Spaxels
from metalgrad.targets import load_target
from metalgrad.tuning import Tuning
from metalgrad.windows import SCALE, Complex, find_complexes, templates

REDSHIFT = 6.36
EDGES = np.linspace(2.6, 5.25, 481)  # µm
RADIUS = 3.0  # kpc
BRIGHT = 100.0  # of [O III] at the pivot
ERROR = 150.0  # of a channel: S/N 6 of Hβ
BASE = 200.0  # of the continuum
FLAT = dist.constraints.real_vector
EXACT = 1e-6  # km/s, and of the LSF: velocity and width are known
TRUTH = {
    "level": 8.2,
    "slope": -0.06,
    "scatter_signed": 0.08,
    "rho": 0.5,
    "mean_N2": -1.2,
    "mean_O3_auroral": -1.9,
    "reddening": 0.15,
    "reddening_scatter_signed": 0.3,
    "brightness": 0.0,
    "fading": 0.3,
    "clumpiness_signed": 0.2,
}


@dataclass(frozen=True, eq=False)
class Case:
    """Data and a model, as metalgrad's `fit` and as any other sampler takes them.

    Attributes
    ----------
    model : Model
    data : Spaxels or LineLikelihood
        For `fit`.
    prepared : LineLikelihood
        For ``model`` as the NumPyro model of one argument that it is.
    spectra : Spaxels or None
        Behind ``data``, with velocity and width of the lines known, so that compression
        is exact.
    """

    model: Model
    data: Spaxels | LineLikelihood
    prepared: LineLikelihood
    spectra: Spaxels | None = None

    def compressed(self):
        """Sample the galaxy, conditioned on line fluxes: the model as it stands."""
        self.model(self.prepared)

    def naive(self):
        """Sample the galaxy and each spaxel's continuum, conditioned on all channels.

        The same posterior, but for what is sampled and not integrated out.
        """
        with handlers.block(hide=["data"]), handlers.trace() as trace:
            self.model(self.prepared)
        flux, scale = trace["line_flux"]["value"], trace["noise_scale"]["value"]
        for number, window in enumerate(find_complexes(EDGES, REDSHIFT, prism())):
            own = np.array([self.prepared.lines.index(n) for n in window.lines])
            design, basis = _templates(window)
            error = self.spectra.error[:, window.pixels]
            with numpyro.plate(f"spectra_{number}", len(flux)):
                law = dist.ImproperUniform(FLAT, (), (len(basis),))
                level = ERROR * numpyro.sample(f"continuum_{number}", law)
                seen = dist.Normal(
                    flux[:, own] @ design + level @ basis, scale[number] * error
                )
                observed = self.spectra.flux[:, window.pixels]
                numpyro.sample(f"spectrum_{number}", seen.to_event(1), obs=observed)


def table(count: int, seed: int) -> Case:
    """Draw ``count`` spectra of the model with independent spaxels; compress them.

    Positions fill a disc, noise is white and every channel's the same.
    """
    rng, model = np.random.default_rng(seed), load_model("gradient-independent")
    windows = find_complexes(EDGES, REDSHIFT, prism())
    radius, angle = RADIUS * np.sqrt(rng.uniform(size=count)), rng.uniform(size=count)
    angle = 2 * np.pi * angle
    position = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    flux = _draw_flux(model, windows, position, seed)
    spectra = np.full((count, len(EDGES) - 1), BASE)
    start = 0
    for window in windows:
        stop = start + len(window.lines)
        spectra[:, window.pixels] += flux[:, start:stop] @ _templates(window)[0]
        start = stop
    spaxels = Spaxels(
        flux=spectra + ERROR * rng.normal(size=spectra.shape),
        error=np.full(spectra.shape, ERROR),
        edges=EDGES,
        position=position,
        index=np.stack([np.arange(count), np.zeros(count, int)], axis=1),
        redshift=REDSHIFT,
        shape=(count, 1),
    )
    known = Tuning(
        velocity=np.zeros(count),
        velocity_error=np.full(count, EXACT),
        offset=np.zeros(len(windows)),
        offset_error=np.full(len(windows), EXACT),
        scale=np.ones(len(windows)),
        scale_error=np.full(len(windows), EXACT),
    )
    data = compress(spaxels, tuning=known)[0]
    return Case(model, data, model.prepare(data), spaxels)


def cube(side: int, seed: int) -> Case:
    """Draw a mock cube of ``side`` spaxels a side for the default model."""
    target, model = load_target("cosmos24108"), load_model("gradient")
    drawn: Cube = simulate(target, seed=seed, width=side * PIXEL)
    wide = replace(target, radius=side * PIXEL)  # all of the field
    spaxels = Spaxels.select(drawn, wide)
    return Case(model, spaxels, prepare(model, spaxels))


def _templates(window: Complex):
    """Return spectra of unit fluxes, and the continuum's terms, in one window."""
    edges = EDGES[window.pixels.start : window.pixels.stop + 1]
    still, plain = np.zeros(1), np.ones(1)
    design = templates(edges, window.lines, REDSHIFT, prism(), still, plain)[0]
    width = float(prism().sigma(continuum.BALMER_LIMIT * (1 + REDSHIFT), SCALE[0]))
    return design, continuum.basis(edges, REDSHIFT, width)


def _draw_flux(model, windows, position, seed):
    """Draw line fluxes of a galaxy with true parameters, (spaxel, line)."""
    complexes = tuple(window.lines for window in windows)
    names = sum(complexes, ())
    blank = Shape(names, complexes, len(position), has_channels=True).blank()
    blank = replace(
        blank,
        position=position,
        pivot=np.asarray(RADIUS / 2),
        typical=np.full(len(names), np.log10(BRIGHT)),
    )
    told = handlers.substitute(model, TRUTH)
    with jax.enable_x64(new_val=True):
        trace = handlers.trace(handlers.seed(told, jax.random.key(seed)))
        return np.asarray(trace.get_trace(blank)["line_flux"]["value"], float)

"""bagpipes, driven: the paper's model of a galaxy's light, and draws of its posterior.

The set-up is that of Sect. 2.4 of Venturi et al. (2024). bagpipes' likelihood and prior
are used as they are; the sampler is driven from here, so that its seed is an argument,
a fit that was killed goes on, and no file is written but the one that was named.
"""

import contextlib
import importlib
import io
import os
import time
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import xarray
from tqdm import tqdm

from metalgrad.lsf import FWHM_PER_SIGMA, LSF

# Venturi et al. (2024), Sect. 2.4: edges of the bins of age [Myr].
AGE_EDGES = (0.0, 10.0, 50.0, 100.0, 300.0)
LOG_U = (-3.0, 0.0)  # Venturi et al. (2024), Sect. 2.4
# Leja et al. (2019): Student's t of the steps between bins; the limits are ours.
STEP = {"limits": (-10.0, 10.0), "scale": 0.3, "df": 2}
# Ours, where the paper says nothing: log of the mass formed [solar masses],
# metallicity [solar], A_V [mag], and redshift about the given one.
LOG_MASS, METALLICITY, A_V = (5.0, 12.0), (0.01, 1.0), (0.0, 3.0)
REDSHIFT_ERROR, REDSHIFT_LIMIT = 0.005, 0.05
HIGHEST = 10.0  # redshift to which bagpipes' table of the IGM reaches
IGNORED = 1e90  # error of a channel that says nothing; its square is still a number

NEW = "new-"  # begins the name of a file that is being written
SLICE, SAVE = 2.0, 30.0  # seconds between two looks at the progress, and two saves
# Our names of what is sampled.
SAMPLED = {
    "continuity:massformed": "log_mass_formed",
    "continuity:metallicity": "stellar_metallicity",
    "dust:Av": "a_v",
    "nebular:logU": "log_u",
    "redshift": "redshift",
}
UNITS = {
    "log_mass": "dex(solMass)",
    "log_mass_formed": "dex(solMass)",
    "rate": "solMass / yr",
    "sfr": "solMass / yr",
    "stellar_metallicity": "solar",
    "a_v": "mag",
    "spectrum": "erg / (s cm2 Angstrom)",
}


def bin_rates(log_mass_formed, steps, edges=AGE_EDGES) -> np.ndarray:
    """Return the star formation rate in each bin of age [solMass / yr].

    Parameters
    ----------
    log_mass_formed : array_like, (...,)
        Of all stars ever formed [dex(solMass)].
    steps : array_like, (..., bin - 1)
        log10 of the rate of each bin over that of the next older one, from the oldest
        step to the youngest (bagpipes' ``dsfr1``, ``dsfr2``, ...).
    edges : sequence of float, (bin + 1,)
        Of the bins of age [Myr], from the youngest.

    Returns
    -------
    numpy.ndarray, (..., bin)
        From the youngest bin to the oldest.
    """
    steps = np.asarray(steps, float)
    if steps.shape[-1] != len(edges) - 2:
        raise ValueError(
            f"{steps.shape[-1]} steps between {len(edges) - 1} bins of age; give "
            f"{len(edges) - 2}, from the oldest"
        )
    oldest = np.zeros((*steps.shape[:-1], 1))
    log_rate = np.concatenate([oldest, np.cumsum(steps, axis=-1)], axis=-1)[..., ::-1]
    relative = 10 ** (log_rate - log_rate.max(axis=-1, keepdims=True))
    formed = np.sum(relative * np.diff(edges) * 1e6, axis=-1, keepdims=True)
    return relative / formed * 10 ** np.asarray(log_mass_formed, float)[..., None]


def resolution_curve(lsf: LSF, scale: float = 1.0) -> np.ndarray:
    """Return the LSF as bagpipes wants it: wavelength [Å] and R = λ/FWHM, (node, 2)."""
    if not scale > 0:
        raise ValueError(f"lsf_scale is {scale}; give a number above 0")
    width = FWHM_PER_SIGMA * lsf.sigma(lsf.wavelength, scale)
    return np.column_stack([lsf.wavelength * 1e4, lsf.wavelength / width])


def instructions(redshift: float, curve: np.ndarray) -> dict:
    """Return bagpipes' fit instructions for the paper's set-up.

    Parameters
    ----------
    redshift : float
    curve : numpy.ndarray, (node, 2)
        From `resolution_curve`.
    """
    history = {
        "massformed": LOG_MASS,
        "metallicity": METALLICITY,
        "bin_edges": list(AGE_EDGES),
    }
    for number in range(1, len(AGE_EDGES) - 1):
        name = f"dsfr{number}"
        history |= {name: STEP["limits"], f"{name}_prior": "student_t"}
        history |= {f"{name}_prior_{key}": STEP[key] for key in ("scale", "df")}
    return {
        "redshift": (redshift - REDSHIFT_LIMIT, redshift + REDSHIFT_LIMIT),
        "redshift_prior": "Gaussian",
        "redshift_prior_mu": redshift,
        "redshift_prior_sigma": REDSHIFT_ERROR,
        "continuity": history,
        "nebular": {"logU": LOG_U},
        "dust": {"type": "Calzetti", "Av": A_V},
        "R_curve": curve,
    }


def load():
    """Import bagpipes without a word.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        with quiet():
            return importlib.import_module("bagpipes")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"a fit of stellar populations needs {error.name}, which is not installed: "
            "pip install metalgrad[sed]"
        ) from error


@contextlib.contextmanager
def quiet():
    """Keep what bagpipes prints and warns of from the caller."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def fitted_model(spectrum: np.ndarray, recipe: dict):
    """Return bagpipes' own prior and likelihood of a spectrum.

    Parameters
    ----------
    spectrum : numpy.ndarray, (channel, 3)
        Wavelength [Å], flux and error [erg / (s cm² Å)].
    recipe : dict
        From `instructions`.
    """
    pipes = load()
    with quiet():
        galaxy = pipes.galaxy(
            "metalgrad", lambda _: spectrum.copy(), photometry_exists=False
        )
        return pipes.fitting.fitted_model(galaxy, recipe)


def sample(fitted, state: Path, *, seed, live, effective, progress):
    """Run nautilus to its end, from where an earlier run was killed.

    Parameters
    ----------
    fitted
        From `fitted_model`.
    state : Path
        File that keeps the sampler, whole at any time.
    seed, live, effective, progress
        As for `metalgrad.sed.fit_sed`.

    Returns
    -------
    nautilus.Sampler
    """
    with quiet():
        sampler = _sampler(fitted, state, seed, live)
    label = "fit of the spectrum"
    with tqdm(desc=label, unit=" models", disable=not progress) as bar:
        saved, done = time.monotonic(), False
        while not done:
            with quiet():
                done = sampler.run(n_eff=effective, timeout=SLICE)
            if time.monotonic() - saved > SAVE:
                put(state, lambda path: sampler.write(path, overwrite=True))
                saved = time.monotonic()
            phase = "sampling" if sampler.explored else "exploring"
            text = f"{phase}, {sampler.n_eff:.0f} effective"
            bar.set_postfix_str(text, refresh=False)
            bar.update(sampler.n_like - bar.n)
    return sampler


def _sampler(fitted, state, seed, live):
    from nautilus import Sampler

    make = {"n_dim": fitted.ndim, "n_live": live, "seed": seed}
    prior, likelihood = fitted.prior.transform, fitted.lnlike
    try:
        sampler = Sampler(prior, likelihood, **make, filepath=state)
    except (OSError, KeyError):  # damaged: from the start
        sampler = Sampler(prior, likelihood, **make)
    sampler.filepath = None  # it would be written in place, and half a file be left
    return sampler


def put(path: Path, write) -> None:
    """Write a file beside its place and move it there."""
    fresh = path.with_name(f"{NEW}{path.name}")
    write(fresh)
    os.replace(fresh, path)


def record(sampler, fitted, *, seed: int, draws: int) -> xarray.DataTree:
    """Make a tree of draws, with equal weights, of what was sampled and what follows.

    In bagpipes' cosmology, and as the lens shows it.
    """
    points, log_weight, _ = sampler.posterior()
    weight = np.exp(log_weight - log_weight.max())
    generator = np.random.default_rng(seed)
    chosen = points[generator.choice(len(points), draws, p=weight / weight.sum())]
    derived = [_derive(fitted, point) for point in chosen]
    columns = {key: np.array([one[key] for one in derived]) for key in derived[0]}
    number = fitted.params.index
    columns |= {ours: chosen[:, number(name)] for name, ours in SAMPLED.items()}
    names = [f"continuity:dsfr{i}" for i in range(1, len(AGE_EDGES) - 1)]
    steps = chosen[:, [number(name) for name in names]]
    columns |= {"rate": bin_rates(columns["log_mass_formed"], steps)}
    data = fitted.galaxy.spectrum
    told = {
        "distance": _distance(fitted),
        "log_evidence": float(sampler.log_z),
        "effective": float(sampler.n_eff),
        "calls": int(sampler.n_like),
    }
    told |= {key: metadata.version(key) for key in ("bagpipes", "nautilus-sampler")}
    edges = {"age_edges": ("edge", list(AGE_EDGES), {"units": "Myr"})}
    return xarray.DataTree.from_dict(
        {
            "/": xarray.Dataset(attrs=told),
            "posterior": _dataset(columns, data[:, 0]),
            "observed_data": _observed(data),
            "constant_data": xarray.Dataset(edges),
        }
    )


def _derive(fitted, point):
    fitted.lnlike(point)
    model = fitted.model_galaxy
    return {
        "log_mass": model.sfh.stellar_mass,
        "sfr": model.sfh.sfr,
        "spectrum": model.spectrum[:, 1].copy(),
    }


def _distance(fitted):
    """Luminosity distance [Mpc] in bagpipes' own cosmology, at the given redshift."""
    known = load().utils
    redshift = fitted.fit_instructions["redshift_prior_mu"]
    return float(np.interp(redshift, known.z_array, known.ldist_at_z))


def _dataset(columns, angstrom):
    dims = {"rate": ("age",), "spectrum": ("wavelength",)}
    found = xarray.Dataset(
        {
            name: (("chain", "draw", *dims.get(name, ())), values[None])
            for name, values in columns.items()
        },
        coords={"wavelength": ("wavelength", angstrom * 1e-4, {"units": "um"})},
    )
    for name, unit in UNITS.items():
        found[name].attrs["units"] = unit
    return found


def _observed(data):
    used = data[:, 2] < IGNORED
    flux, error = (np.where(used, data[:, column], np.nan) for column in (1, 2))
    units = {"units": UNITS["spectrum"]}
    return xarray.Dataset(
        {"flux": ("wavelength", flux, units), "error": ("wavelength", error, units)},
        coords={"wavelength": ("wavelength", data[:, 0] * 1e-4, {"units": "um"})},
    )

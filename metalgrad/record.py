"""The record of a fit: draws, data and provenance in one ArviZ tree."""

import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from scipy.stats import circmean
from xarray import DataTree

from metalgrad.columns import LINE_FLUX

UNITS = {
    "slope": "dex / {length}",
    "level": "12 + log(O/H)",
    "central": "12 + log(O/H)",
    "inner_slope": "dex / {length}",
    "outer_slope": "dex / {length}",
    "break_radius": "{length}",
    "dipole": "dex / {length}",
    "dipole_amplitude": "dex / {length}",
    "dipole_angle": "deg",
    "contrast": "dex",
    "source_level": "12 + log(O/H)",
    "source_slope": "dex / {length}",
    "metallicity": "12 + log(O/H)",
    "scatter": "dex",
    "length": "{length}",
    "clumpiness": "dex",
    "typical_ratio": "dex",
    "reddening": "mag",
    "ebv": "mag",
    "line_flux": "{flux}",
    "line_flux_error": "{flux}",
    "model_flux": "{flux}",
    "radius": "{length}",
    "position": "{length}",
}
VERSIONS = ("metalgrad", "jax", "numpyro", "arviz", "astropy", "numpy")
MAPS = ("metallicity", "ebv")
ANGLE = "dipole_angle"
SPREADS = {"noise_scale", "clumpiness"}
TOTAL = "total_log_likelihood"  # not among what leave-one-out sums up
FLUXES = 10  # of so many draws of which all latents are kept, one has fluxes
LN10 = np.log(10)


def record(model, data, likelihood, outcome, marginal, *, prior_sd, seed) -> DataTree:
    """Put a fit's draws, its data and where they came from into a tree.

    Parameters
    ----------
    model : Model
    data : Spaxels, LineMaps or LineLikelihood
        As the user gave them.
    likelihood : LineLikelihood
        As the model saw them.
    outcome : dict
        From `metalgrad.chains.Run.chains` and `metalgrad.densities.split_density`.
    marginal : array, (chain, draw, spaxel)
        Log likelihood with each spaxel's own latents integrated out; recorded relative
        to `saturated`.
    prior_sd : dict
        Prior standard deviation of each of the galaxy's sites, number by number.
    seed : int

    Returns
    -------
    xarray.DataTree
    """
    from arviz_base import from_dict

    sites = dict(outcome["sites"])
    fixed = find_fixed(sites, prior_sd)
    few = [n for n in sites if sites[n].ndim == 2 or _dims(sites).get(n) == ["ratio"]]
    single = [name for name in few if name not in fixed]
    galaxy = [name for name in sites if name in prior_sd or name in single]
    if ANGLE in sites:
        sites[ANGLE] = unwrap(sites[ANGLE])
    flux, error = likelihood.best_flux()
    error = error / np.sqrt(likelihood.inflation)  # that of a spaxel by itself
    units = {
        "length": getattr(data, "radius_unit", "kpc"),
        "flux": getattr(data, "flux_unit", str(LINE_FLUX)),
    }
    constant = {
        "line_flux_error": error,
        "radius": np.hypot(*np.asarray(likelihood.position).T),
        "position": np.asarray(likelihood.position),
    }
    if getattr(data, "index", None) is not None:
        constant |= {"y": data.index[:, 0], "x": data.index[:, 1]}
    tree = from_dict(
        {
            "posterior": {name: sites[name] for name in (*galaxy, *MAPS)},
            "sample_stats": outcome["statistics"],
            "log_prior": outcome["log_prior"],
            TOTAL: {"line_data": outcome["log_likelihood"]},
            "posterior_predictive": replicate(likelihood, outcome, seed),
            "log_likelihood": {"spaxel_data": marginal - saturated(likelihood)},
            "observed_data": {"line_flux": flux},
            "constant_data": constant,
        },
        dims=_dims(sites),
        coords={
            "line": list(likelihood.lines),
            "ratio": list(model.choose(likelihood.lines)[0]),
            "complex": likelihood.labels,
            "axis": ["major", "minor"],
            "source": list(getattr(model.field, "places", ())),
        },
        attrs={
            "/": _provenance(model, data, likelihood, seed, units["length"])
            | {"fixed": json.dumps(fixed)}
        },
    )
    for group, every in ((TOTAL, 1), ("posterior_predictive", FLUXES)):
        kept = tree[group].dataset
        drawn = outcome["every"] * every * np.arange(kept.sizes["draw"])
        tree[group] = kept.assign_coords(draw=drawn)  # as in the posterior
    _annotate(tree, units, prior_sd)
    return tree


def find_fixed(sites, prior_sd) -> dict[str, float]:
    """Find the galaxy's numbers that a model fixes: draws of them would say nothing.

    The metallicity at the centre is kept among the draws whatever it is.
    """
    kept = {*prior_sd, "central"}
    return {
        name: float(values.flat[0])
        for name, values in sites.items()
        if values.ndim == 2 and name not in kept and np.ptp(values) == 0
    }


def unwrap(angle) -> np.ndarray:
    """Put angles [deg] within half a turn of their mean direction.

    Cut elsewhere, a direction would have two ends, and quantiles between them.
    """
    mean = circmean(angle, high=180, low=-180)
    return mean + (angle - mean + 180) % 360 - 180


def saturated(likelihood) -> np.ndarray:
    """Log density of each spaxel's data at its own best fluxes, errors as given.

    It is the same for every model of these data, and large enough for what is left of
    a likelihood to vanish beside it: likelihoods are recorded relative to it.
    """
    return np.asarray(likelihood.log_norm) - 0.5 * np.sum(likelihood.misfit, axis=1)


def _dims(sites):
    return {
        "metallicity": ["spaxel"],
        "ebv": ["spaxel"],
        "shared_dispersion": ["ratio"],
        "typical_ratio": ["ratio"],
        "dipole": ["axis"],
        "source_level": ["source"],
        "noise_scale": ["complex"],
        "spaxel_data": ["spaxel"],
        "line_flux": ["spaxel", "line"],
        "model_flux": ["spaxel", "line"],
        "line_flux_error": ["spaxel", "line"],
        "radius": ["spaxel"],
        "position": ["spaxel", "axis"],
        "x": ["spaxel"],
        "y": ["spaxel"],
    }


def _provenance(model, data, likelihood, seed, length):
    shape = getattr(data, "shape", None)
    return {
        "title": "metallicity field of a galaxy, by metalgrad",
        "target": getattr(data, "target", ""),
        "redshift": float(getattr(data, "redshift", np.nan)),
        "model": model.name,
        "field": type(model.field).__name__,
        "calibration": model.calibration.name,
        "calibration_reference": model.calibration.reference,
        "ratios": list(model.choose(likelihood.lines)[0]),
        "valid": list(model.calibration.valid(*model.choose(likelihood.lines)[0])),
        "pivot": float(likelihood.pivot),
        "length": length,
        "texture": type(model.texture).__name__ if likelihood.scene else "Independent",
        "noise_inflation": float(likelihood.inflation),
        "effective_radius": float(getattr(data, "effective_radius", None) or np.nan),
        "shape": list(shape) if shape is not None else [],
        "wcs": getattr(data, "header", "") or "",
        "seed": seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": json.dumps({name: _version(name) for name in VERSIONS}),
    }


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _annotate(tree, units, prior_sd):
    for group in tree.children.values():
        for name, variable in group.data_vars.items():
            if name in UNITS:
                variable.attrs["units"] = UNITS[name].format(**units)
            elif name.startswith("mean_"):
                variable.attrs["units"] = "dex"
            if group.name == "posterior" and name in prior_sd:
                variable.attrs["prior_sd"] = prior_sd[name]


def replicate(likelihood, outcome, seed):
    """Line fluxes of the kept draws, and what would be measured of them again.

    Returns
    -------
    dict
        ``model_flux`` and ``line_flux``, (chain, draw, spaxel, line).
    """
    rng = np.random.default_rng(seed)
    kept, sites = outcome["kept"], outcome["sites"]
    flux = kept["line_flux"][:, ::FLUXES].astype(float)
    stride = outcome["every"] * FLUXES
    some = {
        name: sites[name][:, ::stride][:, : flux.shape[1]]
        for name in SPREADS & {*sites}
    }
    scale = np.ones((*flux.shape[:2], 1, 1))
    if "noise_scale" in some:
        scale = some["noise_scale"][:, :, None, likelihood.row_complex]
    if "length" in sites:  # single spaxels about smooth light
        spread = LN10 * some["clumpiness"][:, :, None]
        flux *= 1 + _draw_clumps(likelihood, flux, scale, spread, rng)[..., None]
    noise = rng.normal(size=flux.shape) * scale / np.sqrt(likelihood.inflation)
    inverse = np.linalg.pinv(np.asarray(likelihood.root, float))
    measured = flux + np.einsum("slr,cdsr->cdsl", inverse, noise)
    return {
        "model_flux": flux.astype(np.float32),
        "line_flux": measured.astype(np.float32),
    }


def _draw_clumps(likelihood, flux, scale, spread, rng):
    """Draw how much brighter each spaxel is than smooth light, given its data."""
    smooth = np.einsum("srl,cdsl->cdsr", likelihood.root, flux) / scale
    residual = np.asarray(likelihood.white) / scale - smooth
    wider = 1 + spread**2 * np.sum(smooth**2, axis=-1)
    mean = spread * np.sum(smooth * residual, axis=-1) / wider
    return spread * (mean + rng.normal(size=mean.shape) / np.sqrt(wider))

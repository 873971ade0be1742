"""Stellar mass and star formation history of a spectrum, with bagpipes.

The set-up is that of Sect. 2.2.2 of Venturi et al. (2024): populations of Bruzual &
Charlot (2003) with nebular emission, the attenuation of Calzetti et al. (2000), and a
history in four bins of age with the continuity prior of Leja et al. (2019), sampled by
nautilus (`metalgrad.synthesis`).

Its nebular grids are of Cloudy 25 without grains (the paper's of Cloudy 17), and its
cosmology is flat with H0 = 70, Ωm = 0.3: masses and rates are put to Planck18 here,
+0.018 dex at z = 6 to 8.
"""

import hashlib
import json
from pathlib import Path

import astropy.units as u
import numpy as np
import xarray
from astropy.cosmology import Planck18

from metalgrad import synthesis
from metalgrad.lsf import LSF, prism

__all__ = ["fit_sed", "stellar_mass"]

FLUX_DENSITY = u.erg / u.s / u.cm**2 / u.AA  # as bagpipes has it
CARD, STATE, RESULT = "fit.json", "sampler.h5", "posterior.nc"


def fit_sed(
    wavelength: u.Quantity,
    flux: u.Quantity,
    error: u.Quantity,
    *,
    redshift: float,
    seed: int,
    out: str | Path,
    magnification: float = 1.0,
    lsf: LSF | None = None,
    lsf_scale: float = 1.0,
    live: int = 400,
    effective: int = 1000,
    draws: int = 500,
    progress: bool = True,
) -> xarray.DataTree:
    """Fit stars, gas and dust to a spectrum; minutes, or what an earlier call found.

    Parameters
    ----------
    wavelength : Quantity, (channel,)
        Centres of the channels, observed, in vacuum, increasing.
    flux, error : Quantity, (channel,)
        Flux density and its standard error, per unit wavelength or frequency. A channel
        in which either is not finite, or the error not above 0, is not used.
    redshift : float
        Between 0.05 and 9.95; free within some 0.005.
    seed : int
        Of all randomness.
    out : str or path
        Folder of this fit alone: it keeps the result (``posterior.nc``), and what a fit
        that is not through yet has come to. The same call reads the result, or goes on.
    magnification : float
        Of the lens: masses and rates are divided by it. It may differ between calls.
    lsf : LSF or None
        Of the spectrograph; None for NIRSpec's prism.
    lsf_scale : float
        Width relative to ``lsf``, as in `LSF.sigma`: below 1 for a point source.
    live, effective : int
        Live points of nautilus, and the effective sample size at which it ends.
    draws : int
        How many draws to keep, from the posterior and with equal weights.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    xarray.DataTree
        ``posterior`` (chain, draw): ``log_mass`` (of stars that live) and
        ``log_mass_formed`` [dex(solMass)], ``rate`` [solMass/yr] in each bin of age and
        ``sfr`` over 100 Myr, ``stellar_metallicity`` [solar], ``a_v`` [mag], ``log_u``,
        ``redshift``, and the model's ``spectrum``, as the lens shows it.
        ``observed_data``: ``flux``, ``error`` (NaN where not used).
        ``constant_data``: ``age_edges`` [Myr]. Attributes: ``log_evidence``,
        ``effective`` sample size, ``calls`` of the likelihood, versions.

    Raises
    ------
    ImportError
        If there is something to fit and no bagpipes.
    ValueError
        If ``out`` keeps another fit or something else, or the spectrum or a number
        cannot be used.
    """
    spectrum = _spectrum(wavelength, flux, error)
    _check(redshift, magnification)
    curve = synthesis.resolution_curve(prism() if lsf is None else lsf, lsf_scale)
    recipe = synthesis.instructions(redshift, curve)
    settings = {"seed": seed, "live": live, "effective": effective}
    folder = Path(out)
    card = _card(spectrum, recipe, draws=draws, **settings)
    found = _recall(folder, card)
    if found is None:
        fitted = synthesis.fitted_model(spectrum, recipe)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(card, indent=1)
        synthesis.put(folder / CARD, lambda path: path.write_text(text))
        state = folder / STATE
        sampler = synthesis.sample(fitted, state, progress=progress, **settings)
        found = synthesis.record(sampler, fitted, seed=seed, draws=draws)
        _keep(folder / RESULT, found)
        state.unlink(missing_ok=True)
    return _intrinsic(found, redshift, magnification)


def stellar_mass(posterior: xarray.DataTree) -> u.Quantity:
    """Return the stellar mass that a fit found: 16, 50 and 84 % [solMass], (3,).

    Parameters
    ----------
    posterior : xarray.DataTree
        From `fit_sed`.
    """
    draws = posterior["posterior"]["log_mass"].values.ravel()
    return 10 ** np.quantile(draws, [0.16, 0.5, 0.84]) * u.Msun


def _spectrum(wavelength, flux, error):
    """Return wavelength [Å], flux and error as bagpipes has them, (channel, 3)."""
    angstrom = u.Quantity(wavelength).to_value(u.AA)
    per = u.spectral_density(angstrom * u.AA)
    values, errors = (
        u.Quantity(one).to_value(FLUX_DENSITY, per) for one in (flux, error)
    )
    if angstrom.ndim != 1 or not angstrom.shape == values.shape == errors.shape:
        raise ValueError(
            f"wavelength, flux and error have the shapes {angstrom.shape}, "
            f"{values.shape} and {errors.shape}; give one spectrum, (channel,) each"
        )
    if len(angstrom) < 2 or not np.all(np.diff(angstrom) > 0):
        raise ValueError("wavelength does not increase; sort the channels")
    good = np.isfinite(values) & np.isfinite(errors) & (errors > 0)
    if not good.any():
        raise ValueError(
            "no channel can be used; give some with a finite flux and an error above 0"
        )
    # Channels within are kept, as bagpipes takes their widths from their neighbours.
    first, last = np.flatnonzero(good)[[0, -1]]
    table = [
        angstrom,
        np.where(good, values, 0.0),
        np.where(good, errors, synthesis.IGNORED),
    ]
    return np.column_stack(table)[first : last + 1]


def _check(redshift, magnification):
    low = synthesis.REDSHIFT_LIMIT
    high = synthesis.HIGHEST - low
    if not low < redshift <= high:
        raise ValueError(
            f"redshift is {redshift}; bagpipes has models of {low:g} to {high:g}"
        )
    if not (np.isfinite(magnification) and magnification > 0):
        raise ValueError(f"magnification is {magnification}; give a number above 0")


def _card(spectrum, recipe, **settings):
    """Say which fit this is: what its draws depend on, but for versions."""
    apart = ("R_curve", "redshift", "redshift_prior_mu")
    plain = {key: value for key, value in recipe.items() if key not in apart}
    digests = {
        "spectrum": spectrum,
        "lsf": recipe["R_curve"],
        "priors": np.array(json.dumps(plain, sort_keys=True)),
    }
    told = {
        name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
        for name, array in digests.items()
    }
    return told | {"redshift": float(recipe["redshift_prior_mu"])} | settings


def _recall(folder, card):
    """Return the result of an earlier call, or None; refuse another fit's folder."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder for this fit")
    entries = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    entries = {name for name in entries if not name.startswith(synthesis.NEW)}
    if entries and CARD not in entries:
        raise ValueError(
            f"{folder} holds {', '.join(sorted(entries)[:3])} and no fit of a "
            "spectrum; name a new folder"
        )
    if not entries:
        return None
    kept = json.loads((folder / CARD).read_text())
    differs = [key for key in card if kept.get(key) != card[key]]
    if differs:
        raise ValueError(
            f"{folder} keeps a fit with another {', '.join(differs)}; name another "
            "folder, or remove this one to fit anew"
        )
    if RESULT not in entries:
        return None
    with xarray.open_datatree(folder / RESULT, engine="h5netcdf") as tree:
        return tree.load()


def _keep(path, tree):
    synthesis.put(path, lambda fresh: tree.to_netcdf(fresh, engine="h5netcdf"))


def _intrinsic(tree, redshift, magnification):
    """Put masses and rates to Planck18, and take the lens away."""
    distance = Planck18.luminosity_distance(redshift).to_value(u.Mpc)
    gain = (distance / tree.attrs["distance"]) ** 2 / magnification
    draws = tree["posterior"].to_dataset()
    for name in ("log_mass", "log_mass_formed"):
        draws[name] = (draws[name] + np.log10(gain)).assign_attrs(draws[name].attrs)
    for name in ("rate", "sfr"):
        draws[name] = (draws[name] * gain).assign_attrs(draws[name].attrs)
    found = tree.copy()
    found["posterior"] = xarray.DataTree(draws)
    found.attrs |= {"distance": distance, "magnification": float(magnification)}
    found.attrs["redshift"] = float(redshift)
    return found

"""What makes a gradient uncertain: noise, calibrations, dust or scatter.

Draws of a posterior in which one cause happens to be alike have slopes that differ
less.  By how much less, for each cause and every order of taking them in, is what each
has in the variance.
"""

from functools import partial
from itertools import combinations
from math import comb

import jax.numpy as jnp
import numpy as np
import xarray
from astropy.table import Table

from metalgrad import dust, lines
from metalgrad.calibrations import load_calibration
from metalgrad.measures import SAMPLE

CAUSES = {
    "shared": "calibrations' dispersion that is common to the galaxy",
    "local": "calibrations' dispersion within the galaxy",
    "dust": "E(B-V)",
    "scatter": "departure of metallicity from a straight line",
}
WANTED = "slope", "level", "central"
FIELDS = "LinearGradient", "Flat"
DARK = 1e-30  # flux, or square of radius, that is none
RANK = 1e-10  # of the largest singular value: less is rounding
LEAST = 5  # draws for each number that is taken in: shares are then good to some 0.1


def variance_budget(posterior, *, calibration=None, attenuation=dust.calzetti) -> Table:
    """Share the variance of slope and level among its causes.

    What a cause does to a straight line is in the mean and in the radial slope of what
    it adds in each spaxel, weighted by light; of those the slope and the level are
    linear functions, but for noise.  The share of a cause is how much less variance it
    leaves when it becomes known, averaged over the orders in which causes can be (the
    measure of Lindeman, Merenda & Gold 1980; Shapley's value), less what as many random
    numbers would have explained.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`, of a straight gradient or a flat field.
    calibration : Calibration, optional
        That of the fit; by default the card of the name that the fit recorded.
    attenuation : callable
        k(λ) of the fit.

    Returns
    -------
    astropy.table.Table
        A row for ``slope``, ``level`` and ``central``, as far as the fit has them:
        ``sd``, and shares of the variance of ``noise`` (all that no cause explains),
        ``shared``, ``local``, ``dust`` and ``scatter``.

    Raises
    ------
    ValueError
        If the field is another, or draws are too few.
    """
    draws, flux = _pair(posterior)
    if {"central"} - {*draws.data_vars} or posterior.attrs["field"] not in FIELDS:
        raise ValueError(
            f"the field is {posterior.attrs['field']}; a budget is made for "
            f"{' and '.join(FIELDS)}: fit one of those beside it"
        )
    calibration = calibration or load_calibration(posterior.attrs["calibration"])
    causes = _causes(posterior, draws, flux, calibration, attenuation)
    count = sum(values.shape[1] for values in causes.values())
    if draws.sizes["sample"] < LEAST * count:
        raise ValueError(
            f"{draws.sizes['sample']} thinned draws cannot tell {count} numbers apart; "
            f"draw {LEAST * count} or more (fluxes are kept of some only)"
        )
    table = Table(names=("name", "sd", "noise", *causes), dtype=("U8", *"f" * 6))
    for name in (name for name in WANTED if name in draws):
        values = draws[name].values.astype(float)
        if not np.ptp(values):
            continue
        shares = share(values, causes)
        sd = posterior["posterior"][name].values.std()
        table.add_row((name, sd, 1 - sum(shares.values()), *shares.values()))
    table["sd"].description = "posterior standard deviation"
    table["noise"].description = "share of the variance that no cause explains"
    for name, meaning in CAUSES.items():
        table[name].description = f"share of the variance: {meaning}"
    return table


def tell(table) -> str:
    """Say a budget in plain text, a line for each parameter.

    Parameters
    ----------
    table : astropy.table.Table
        From `variance_budget`.
    """
    names = {"shared": "calibration", "local": "calibration within"}
    said = []
    for row in table:
        parts = [f"{names.get(c, c)} {max(row[c], 0):.0%}" for c in ("noise", *CAUSES)]
        said.append(f"{row['name']:<8} {', '.join(parts)}")
    return "\n".join(said)


def _pair(posterior):
    """Draws that have fluxes beside them, and these, (sample, ...)."""
    flux = posterior["posterior_predictive"].dataset["model_flux"]
    both = xarray.align(posterior["posterior"].dataset, flux)
    return tuple(one.stack(sample=SAMPLE) for one in both)


def _causes(posterior, draws, flux, calibration, attenuation):
    """Tell what each cause adds to means and slopes, (sample, number)."""
    radius = posterior["constant_data"]["radius"].values
    flux = flux.transpose("sample", "spaxel", "line")
    names = tuple(map(str, flux["line"].values))
    metallicity, ebv = (
        draws[name].transpose("sample", "spaxel").values.astype(float)
        for name in ("metallicity", "ebv")
    )
    slope = draws["slope"].values if "slope" in draws else np.zeros(len(ebv))
    line = draws["central"].values[:, None] + slope[:, None] * radius
    weight = np.median(flux.values, axis=0).max(axis=1)
    straighten = partial(_straighten, radius=radius, weight=weight)
    log_flux = np.log10(np.maximum(flux.values.astype(float), DARK))
    log_flux += 0.4 * ebv[..., None] * attenuation(lines.wavelengths(names))
    log_flux = dict(zip(names, jnp.moveaxis(jnp.array(log_flux), -1, 0), strict=True))
    shared, local = np.zeros((len(ebv), 0)), []
    if "shared_dispersion" in draws:
        shared = draws["shared_dispersion"].transpose("sample", "ratio").values
    ratios = tuple(np.ravel(posterior.attrs["ratios"]))  # netCDF: one is no list
    common = _spread(calibration, ratios, metallicity, shared)
    for number, ratio in enumerate(ratios):
        if lines.ratio(ratio).lines <= {*names}:
            predicted = calibration.predict((ratio,), jnp.ravel(metallicity))
            mean, dispersion = (
                np.asarray(one).reshape(metallicity.shape) for one in predicted
            )
            off = (np.asarray(lines.ratio(ratio).log10(log_flux)) - mean) / dispersion
            local.append(straighten(off - common[..., number]))
    return {
        "shared": shared,
        "local": np.concatenate(local, axis=1),
        "dust": straighten(ebv),
        "scatter": straighten(metallicity - line),
    }


def _spread(calibration, ratios, metallicity, shared):
    """Tell what all of a galaxy departs by in each place, (sample, spaxel, ratio)."""
    each = np.zeros((*metallicity.shape, len(ratios)))
    if shared.shape[1]:
        each += shared[:, None]
    flat = jnp.ravel(metallicity), jnp.array(each.reshape(-1, len(ratios)))
    return np.asarray(calibration.tie(ratios, *flat)).reshape(each.shape)


def _straighten(values, radius, weight):
    """Mean and radial slope of each draw, (sample, 2)."""
    share = weight / weight.sum()
    away = radius - share @ radius
    lever = share * away
    spread = lever @ away
    return np.stack([values @ share, values @ lever / max(spread, DARK)], axis=1)


def share(values, causes) -> dict[str, float]:
    """Share what causes explain of a variance among them.

    Parameters
    ----------
    values : array, (sample,)
    causes : dict of str to array, (sample, number)

    Returns
    -------
    dict of str to float
        They sum up to what all causes together explain; one may be below 0 by chance.
    """
    names = tuple(causes)
    explained = {
        chosen: _explained(values, [causes[name] for name in chosen])
        for size in range(len(names) + 1)
        for chosen in combinations(names, size)
    }
    shares = dict.fromkeys(names, 0.0)
    for chosen, value in explained.items():
        for name in {*names} - {*chosen}:
            more = tuple(one for one in names if one in chosen or one == name)
            orders = len(names) * comb(len(names) - 1, len(chosen))
            shares[name] += (explained[more] - value) / orders
    return shares


def _explained(values, regressors):
    """Share of a variance that linear regression explains, adjusted for its numbers."""
    design = np.concatenate([np.zeros((len(values), 0)), *regressors], axis=1)
    design = design - design.mean(axis=0)
    centred = values - values.mean()
    basis, size, _ = np.linalg.svd(design, full_matrices=False)
    basis = basis[:, size > RANK * size.max(initial=0.0)]
    left = np.sum((centred - basis @ (basis.T @ centred)) ** 2) / np.sum(centred**2)
    return 1 - left * (len(values) - 1) / (len(values) - 1 - basis.shape[1])

"""Fit again without the spaxels that importance sampling cannot leave out.

Of a few bright spaxels one may weigh so much that the posterior without it is another
one: Pareto's k tells.  Nothing helps there but to leave it out in earnest.
"""

import numpy as np
from jax import enable_x64, random
from threadpoolctl import threadpool_limits
from xarray import Dataset, DataTree

from metalgrad.checks import examine, leave_one_out, verdict_attrs
from metalgrad.comparison import SPAXEL, check_same, identify
from metalgrad.groups import identity, leave_out, warn_chains
from metalgrad.inference import NIRSPEC, prepare, set_up
from metalgrad.measures import REFITTED, join
from metalgrad.psf import PSF, ImagePSF
from metalgrad.record import saturated


def refit(
    posterior: DataTree,
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
) -> DataTree:
    """Make leave-one-out exact where Pareto's k is too high, by a fit without each.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.
    model, data
        Of that fit.
    seed, psf, slice_angle, warmup, draws, chains, target_accept, progress
        As in `metalgrad.fit`.

    Returns
    -------
    xarray.DataTree
        A copy with a group ``refitted``, (spaxel,): ``elpd``, the log density of each
        spaxel's data given all others, its Monte Carlo error ``mc_error``, and
        ``r_hat`` of the fit.  `metalgrad.compare`, `metalgrad.judge` and what else
        leaves spaxels out take it from there.  Where k is low nothing is done.

    Raises
    ------
    ValueError
        If the fit is one of another model or other data, or its likelihood is not
        finite.

    Warns
    -----
    ConvergenceWarning
        If the chains of some of the fits disagree.
    """
    prepared = prepare(model, data, psf, slice_angle)
    _check_origin(posterior, model, data, prepared)
    found = leave_one_out(posterior)
    if found is None:
        raise ValueError(
            "the log likelihood of some spaxels is not finite or never changes; fit "
            "again before leaving any out"
        )
    high = np.flatnonzero(~(found.pareto_k.values <= found.good_k))
    settings = {"chains": chains, "draws": draws, "progress": progress}
    with enable_x64(new_val=True), threadpool_limits(1, "blas"):
        run, arrays = set_up(model, prepared, warmup, target_accept)
        for number in high:
            out = np.arange(len(prepared)) == number
            key = random.fold_in(random.key(seed), number)
            density, r_hat = leave_out(run, arrays, out, key, **settings)
            one = _average(density - saturated(prepared)[number])
            posterior = _add(posterior, number, one | {"r_hat": r_hat})
    if high.size:
        warn_chains(SPAXEL, high, posterior[REFITTED]["r_hat"].sel(spaxel=high).values)
    posterior = posterior.copy()
    posterior.attrs |= verdict_attrs(examine(posterior))
    return posterior


def _check_origin(posterior, model, data, prepared):
    """Refuse a fit of something else."""
    fitted = [posterior.attrs.get(name, "") for name in ("model", "calibration")]
    given = [model.name, model.calibration.name]
    if fitted != given:
        raise ValueError(
            f"the fit is of model {' with '.join(fitted)} and not of "
            f"{' with '.join(given)}; give the model that was fitted"
        )
    own = identity(data, prepared)
    own |= {"unit": SPAXEL, "groups": np.arange(len(prepared))}
    check_same({"the fit": identify(posterior), "the data": own})


def _average(density):
    """Average a density over draws, given its logarithm."""
    weight = np.exp(density - density.max())
    mean, spread = weight.mean(), weight.std() / np.sqrt(weight.size)
    return {"elpd": density.max() + np.log(mean), "mc_error": spread / mean}


def _add(posterior, number, found):
    """Add a spaxel to those that were refitted, in a copy."""
    columns = {name: (SPAXEL, [float(value)]) for name, value in found.items()}
    return join(posterior, Dataset(columns, coords={SPAXEL: [int(number)]}))

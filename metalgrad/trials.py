"""One trial of an inference: a galaxy of the prior is fitted, its truth ranked."""

import time
from functools import partial

import numpy as np
from jax import random

from metalgrad import coverage
from metalgrad.branches import sample, unseen
from metalgrad.chains import Run
from metalgrad.checkpoint import Memory
from metalgrad.densities import log_likelihoods
from metalgrad.likelihood import LineLikelihood
from metalgrad.measures import effective_draws, r_hat
from metalgrad.replicas import LOG_LIKELIHOOD, replicate_within

RANKED = 99  # independent draws among which a truth is ranked: 100 ranks
AGREE = 1.05  # R-hat above which chains go on (ours)
LONGER = 2, 4  # times as many draws, then


def rank_one(
    run: Run, data: LineLikelihood, *, key, draws: int, chains: int, brightest: float
) -> dict:
    """Draw a galaxy and its data, fit it, and rank the truth.

    Chains that disagree, or that are worth fewer independent draws than are ranked, go
    on; that they have to hangs on the draws and not on the truth, so that ranks stay
    uniform.

    Parameters
    ----------
    run : Run
    data : LineLikelihood
        The template, as `Model.prepare` returns it.
    key : jax.Array
    draws, chains : int
    brightest : float
        As of `metalgrad.replicas.replicate_within`.

    Returns
    -------
    dict
        ``passed``, how many galaxies were too bright before it.  By parameter:
        ``truth``, ``rank`` (from 0 to `RANKED`), ``mean``, ``sd`` and
        ``ess`` (of bulk or tails, the fewer); and ``r_hat``, the largest;
        ``diverging``, a share; ``again``, whether chains had to go on;
        ``converged``, whether they agree at last; ``seconds``.  Of a fit that failed
        ``truth``, and in ``failed`` why.
    """
    begin, keys = time.perf_counter(), random.split(key, 3)
    names = _labels(run.hierarchy.model, data)
    replica, passed = replicate_within(run.hierarchy, data.arrays, keys[0], brightest)
    truth, arrays = replica
    truth = {name: float(v) for name, v in _spell_out(truth, names).items()}
    try:
        affines = run.branches(arrays, keys[1])
        settings = {"keys": random.split(keys[2]), "chains": chains, "kept": Memory()}
        look = partial(_sample, run, arrays, affines, truth, names, settings)
        for times in (1, *LONGER):
            values, diverging = look(times * draws)
            if _suffices(values):
                break
    except (ValueError, ArithmeticError) as error:
        failed = f"{type(error).__name__}: {error}"
        return {"truth": truth, "passed": passed, "failed": failed}
    found = {
        "rank": {n: coverage.rank(v, truth[n], RANKED) for n, v in values.items()},
        "mean": {n: float(np.mean(v)) for n, v in values.items()},
        "sd": {n: float(np.std(v)) for n, v in values.items()},
        "ess": {n: _independent(v) for n, v in values.items()},
        "r_hat": max(float(r_hat(v)) for v in values.values()),
        "diverging": diverging,
        "again": times > 1,
        "converged": _suffices(values),
        "seconds": time.perf_counter() - begin,
    }
    return {"truth": truth, "passed": passed} | found


def _sample(run, arrays, affines, truth, names, settings, draws):
    """Run chains; return draws of what the model leaves free, and divergences."""
    settings = settings | {"draws": draws, "progress": False}
    outcome, *_ = sample(run, arrays, affines, integrate=unseen, **settings)
    kept, sites = outcome["kept"], outcome["sites"]
    wanted = (*run.hierarchy.galaxy_names, *run.hierarchy.derived)
    values = {name: sites[name] for name in wanted}
    values[LOG_LIKELIHOOD] = log_likelihoods(
        run.hierarchy, arrays, kept["theta"], kept["z"]
    )
    values = _spell_out(values, names, 2)
    lost = [name for name, value in values.items() if not np.isfinite(value).all()]
    if lost:
        raise ArithmeticError(f"draws of {', '.join(lost)} are not finite")
    still = {name for name, value in values.items() if np.ptp(value) == 0}
    fixed = {name for name in still if np.allclose(values[name], truth[name])}
    if still - fixed:
        raise ArithmeticError(
            f"chains of {', '.join(sorted(still - fixed))} stand still"
        )
    moving = {name: value for name, value in values.items() if name not in fixed}
    return moving, float(np.mean(outcome["statistics"]["diverging"]))


def _suffices(values):
    """Whether chains agree, and are worth as many draws as are ranked."""
    return all(
        r_hat(value) < AGREE and _independent(value) >= RANKED
        for value in values.values()
    )


def _independent(value):
    return float(min(map(float, effective_draws(value))))


def _labels(model, data):
    """Name what the numbers of sites of several are of."""
    ratios = model.choose(data.lines)[0]
    return {
        "noise_scale": data.labels,
        "shared_dispersion": ratios,
        "typical_ratio": ratios,
    }


def _spell_out(values, labels, lead: int = 0):
    """Give each number its own name; ``lead`` axes are not of the numbers."""
    single = {}
    for name, value in values.items():
        array = np.asarray(value, float)
        for index in np.ndindex(array.shape[lead:]):
            which = ", ".join(map(str, index))
            if name in labels:
                which = labels[name][index[0]]
            single[f"{name}[{which}]" if index else name] = array[(..., *index)]
    return single

"""The samplers that are timed: metalgrad's fit, and what else takes such a model.

Each is a generator.  It yields `Progress` when its warm-up is over and after every
batch of draws, for as long as it is asked.
"""

import warnings
from importlib.util import find_spec
from typing import NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC, NUTS, init_to_median

from metalgrad.bench_measures import Clock
from metalgrad.bench_problem import Problem, each, start_points
from metalgrad.checks import ConvergenceWarning
from metalgrad.inference import fit

WARMUP, BATCH = 500, 500  # iterations of a chain
DEFAULT, SHORT = 1000, 25  # draws of metalgrad's fits
THIN, STRIDE = 10, 500  # steps of emcee


class Progress(NamedTuple):
    """What a sampler has come to.

    Attributes
    ----------
    samples : dict of str to array, (chain, draw, ...)
        The galaxy's parameters; empty until there is a draw.
    warmup, sampling : float
        Seconds so far, compilation apart.
    """

    samples: dict
    warmup: float
    sampling: float


def metalgrad(problem: Problem, clock: Clock):
    """Time the whole of `fit` by default settings, with all that it adds to draws.

    A fit with next to no draws says what comes before them.
    """
    fixed = None
    for draws in (SHORT, DEFAULT):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = fit(
                problem.case.model,
                problem.case.data,
                seed=problem.seed,
                draws=draws,
                chains=problem.chains,
                progress=False,
            )
        seconds = clock.lap()
        if fixed is None:
            fixed = seconds
            yield Progress({}, fixed, 0.0)
    samples = {name: found.posterior[name].values for name in problem.names}
    yield Progress(samples, min(fixed, seconds), max(seconds - fixed, 0.0))


def numpyro(problem: Problem, clock: Clock, model=None):
    """NumPyro's NUTS on the model as it is written."""
    on_cpu = jax.default_backend() == "cpu"
    mcmc = MCMC(
        NUTS(model or problem.case.compressed, init_strategy=init_to_median),
        num_warmup=WARMUP,
        num_samples=BATCH,
        num_chains=problem.chains,
        chain_method="parallel" if on_cpu else "vectorized",
        progress_bar=False,
    )
    mcmc.warmup(problem.key)
    jax.block_until_ready(mcmc.post_warmup_state.z)
    warmup, sampling, parts = clock.lap(), 0.0, []
    yield Progress({}, warmup, sampling)
    while True:
        mcmc.run(mcmc.post_warmup_state.rng_key)
        samples = mcmc.get_samples(group_by_chain=True)
        parts.append({name: np.asarray(samples[name]) for name in problem.names})
        mcmc.post_warmup_state = mcmc.last_state
        sampling += clock.lap()
        yield Progress(_join(parts), warmup, sampling)


def naive(problem: Problem, clock: Clock):
    """NumPyro's NUTS on all channels, each spaxel's continuum sampled."""
    return numpyro(problem, clock, problem.case.naive)


def blackjax(problem: Problem, clock: Clock):
    """BlackJAX's NUTS with its window adaptation, a chain per thread."""
    import blackjax

    start, potential, constrain = start_points(problem, problem.chains)
    target = lambda point: -potential(point)  # noqa: E731

    def warm(key, point):
        adaptation = blackjax.window_adaptation(
            blackjax.nuts,
            target,
            adaptation_info_fn=blackjax.adaptation.base.get_filter_adapt_info_fn(),
        )
        (state, found), _ = adaptation.run(key, point, num_steps=WARMUP)
        return state, found

    def draw(key, state, found):
        step = blackjax.nuts(target, **found).step

        def one(state, key):
            state, _ = step(key, state)
            return state, constrain(state.position)

        return jax.lax.scan(one, state, jax.random.split(key, BATCH))

    keys = jax.random.split(problem.key, problem.chains)
    state, found = each(warm)(keys, start)
    warmup, sampling, parts = clock.lap(), 0.0, []
    yield Progress({}, warmup, sampling)
    advance = each(draw)
    while True:
        keys = jax.vmap(lambda key: jax.random.split(key)[0])(keys)
        state, samples = advance(keys, state, found)
        parts.append(jax.tree.map(np.asarray, samples))
        sampling += clock.lap()
        yield Progress(_join(parts), warmup, sampling)


def nutpie(problem: Problem, clock: Clock):
    """Run nutpie through its door for functions, here JAX's, by its own settings.

    Warm-up and sampling share the time as they share the gradients.
    """
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    start, potential, constrain = start_points(problem, problem.chains)
    points = jax.vmap(lambda point: ravel_pytree(point)[0])(start)
    unravel = ravel_pytree(jax.tree.map(lambda x: x[0], start))[1]
    gradient = jax.jit(jax.value_and_grad(lambda x: -potential(unravel(x))))
    expand = jax.jit(lambda x: constrain(unravel(x)))
    like = jax.tree.map(np.asarray, expand(points[0]))

    def density(x):
        value, slope = gradient(x)
        return float(value), np.asarray(slope)

    def spell(x):
        return {name: np.asarray(value) for name, value in expand(x).items()}

    compiled = from_pyfunc(
        ndim=points.shape[1],
        make_logp_fn=lambda: density,
        make_expand_fn=lambda *_: spell,
        expanded_dtypes=[value.dtype for value in like.values()],
        expanded_shapes=[value.shape for value in like.values()],
        expanded_names=list(like),
        make_initial_point_fn=lambda seed: np.asarray(points[seed % len(points)]),
    )
    sampler = nutpie.sample(
        compiled,
        chains=problem.chains,
        seed=problem.seed,
        progress_bar=False,
        blocking=False,
    )
    try:
        tree = sampler.wait(timeout=problem.limit)
    except TimeoutError:
        tree = sampler.abort()
    seconds = clock.lap()
    steps, tuned = (
        float(np.nansum(tree[group]["n_steps"]))
        for group in ("sample_stats", "warmup_sample_stats")
    )
    share = tuned / (steps + tuned)
    samples = {name: tree["posterior"][name].values for name in problem.names}
    # Of a run that was cut chains are not equally long, and filled up.
    spoilt = [
        np.isnan(v).reshape(*v.shape[:2], -1).any((0, 2)) for v in samples.values()
    ]
    whole = ~np.any(spoilt, axis=0)
    samples = {name: values[:, whole] for name, values in samples.items()}
    yield Progress(samples, share * seconds, (1 - share) * seconds)


def emcee(problem: Problem, clock: Clock):
    """Run emcee's stretch moves, twice as many walkers as there are dimensions.

    The first half of what was drawn is left out.
    """
    import emcee

    size = sum(x.size for x in jax.tree.leaves(start_points(problem, 1)[0]))
    start, potential, constrain = start_points(problem, 2 * size + 2)
    points = jax.vmap(lambda point: ravel_pytree(point)[0])(start)
    unravel = ravel_pytree(jax.tree.map(lambda x: x[0], start))[1]
    density = jax.jit(jax.vmap(lambda x: -potential(unravel(x))))
    spell = jax.jit(jax.vmap(jax.vmap(lambda x: constrain(unravel(x)))))

    def bounded(x):
        value = np.asarray(density(x))
        return np.where(np.isfinite(value), value, -np.inf)

    sampler = emcee.EnsembleSampler(len(points), size, bounded, vectorize=True)
    state, seconds = np.array(points), 0.0
    sampler.random_state = np.random.RandomState(problem.seed).get_state()
    while True:
        state = sampler.run_mcmc(state, STRIDE)
        chain = sampler.get_chain()[sampler.iteration // 2 :: THIN].swapaxes(0, 1)
        samples = jax.tree.map(np.asarray, spell(chain))
        seconds += clock.lap()
        yield Progress(samples, seconds / 2, seconds / 2)


RIVALS = {
    "metalgrad": metalgrad,
    "numpyro": numpyro,
    "naive": naive,
    "blackjax": blackjax,
    "nutpie": nutpie,
    "emcee": emcee,
}


def missing(name: str) -> str:
    """Say why a rival cannot be run here; empty if it can."""
    if name in ("blackjax", "nutpie", "emcee") and find_spec(name) is None:
        return f"{name} is not installed: pip install 'metalgrad[bench]'"
    return ""


def _join(parts):
    return {name: np.concatenate([p[name] for p in parts], axis=1) for name in parts[0]}

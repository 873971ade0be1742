"""Chains of NUTS in coordinates where the posterior is nearly a sphere."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise, repeat
from threading import Event

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo
from tqdm.auto import tqdm

from metalgrad import (
    curvature,
    hops,
    pilot,
    resonance,
    settled,
    steady,
    stopping,
    whitening,
)
from metalgrad.checkpoint import UNSAVED
from metalgrad.hierarchy import Hierarchy
from metalgrad.modes import find_branches
from metalgrad.record import MAPS
from metalgrad.thinning import join, thin

CHUNK = 25  # iterations between two looks at the progress bar
PILOTS, PILOT = 2, 125  # chains that find coordinates, and their iterations
ROUNDS = 4  # of pilots at most, each in the coordinates that the last one found
# Doublings of a trajectory, at most.  Where coordinates are not yet the posterior's one
# goes on for hundreds of steps, and 31 find as good ones: so warms up what has pilots.
WARMING, DEEPEST = 5, 10
STATISTICS = {
    "energy": "energy",
    "lp": "potential_energy",
    "tree_steps": "num_steps",
    "acceptance_rate": "accept_prob",
    "diverging": "diverging",
}


class Run:
    """NUTS on a whitened hierarchy, compiled once and driven in chunks."""

    def __init__(self, hierarchy: Hierarchy, warmup: int, target_accept: float):
        self.hierarchy, self.warmup = hierarchy, warmup
        self.target_accept = target_accept
        self.still = steady if hierarchy.coupled else settled
        self.wanted = {*hierarchy.galaxy_names, *hierarchy.derived, *MAPS, "line_flux"}
        self._init, self._step = hmc(potential_fn_gen=self._potential, algo="NUTS")
        self._begin = jax.jit(self._set_out)
        self.advance = jax.jit(self._advance)
        self._compiling = None  # or, in another thread, `advance`

    def coordinates(self, arrays, key, checkpoint=UNSAVED) -> dict:
        """Return the arrays of an expansion about the best branch."""
        return self.branches(arrays, key, checkpoint)[0]

    def branches(self, arrays, key, checkpoint=UNSAVED) -> list[dict]:
        """Return the arrays of an expansion about each live branch, the best first.

        A checkpoint may know them already.
        """
        like = {"theta": 0, "z": 0, "stretch": 0, "bridge": 0}
        like["steady"] = self.still.blank(self.hierarchy)
        if not self.hierarchy.coupled:
            like["root"] = 0

        def find():
            found = [one.arrays for one in self.expand(arrays, key)]
            return jax.tree.map(lambda *parts: jnp.stack(parts), *found)

        known = checkpoint.recall("branches", jax.tree.structure(like), find)
        each = range(len(known["theta"]))
        return [jax.tree.map(lambda part, n=n: part[n], known) for n in each]

    def expand(self, arrays, key) -> list[curvature.Expansion]:
        """Find the coordinates in which to sample, those of the best branch first."""
        if self.hierarchy.coupled:
            key_guess, key_pilot = random.split(key)
            guesses = pilot.first_guess(self.hierarchy, arrays, key_guess)
            found = [self._pilot(arrays, key_pilot, *guess) for guess in guesses]
        else:
            self._compile_ahead(arrays, key)
            about = partial(curvature.expand_about, self.hierarchy, arrays)
            return [about(*m) for m in find_branches(self.hierarchy, arrays, key)]
        most = max(len(one.steady["data"]) for one in found)
        return [replace(one, steady=steady.widen(one.steady, most)) for one in found]

    def _compile_ahead(self, arrays, key):
        """Compile chains of spaxels on their own while modes are looked for.

        How many coordinates other data have is not known yet.
        """

        def imagine(arrays, key):
            affine = curvature.blank(self.hierarchy, arrays)
            return self.start(key, arrays, affine), arrays, affine

        if self._compiling is None:
            lowered = self.advance.lower(*jax.eval_shape(imagine, arrays, key), 0)
            pool = ThreadPoolExecutor(1)
            self._compiling = pool.submit(lowered.compile)
            pool.shutdown(wait=False)

    def _compile(self, *given):
        """Compile `advance`, or wait until that is done, before threads need it."""
        if self._compiling is not None:
            self._compiling.result()
        jax.block_until_ready(self.advance(*given, 0))

    def _pilot(self, arrays, key, theta, z, told):
        """Find the coordinates about a guess, by way of short chains.

        They go on in new coordinates until these are about where they went.
        """
        found = pilot.expand_at(self.hierarchy, arrays, theta, z, told=told)
        for one in random.split(key, ROUNDS):
            path, before = self.explore(one, arrays, found.arrays), found
            least, whole = len(found.steady["data"]), np.concatenate(path)
            found = pilot.expand_about(self.hierarchy, arrays, whole, z, least)
            if pilot.has_settled(self.hierarchy, path, before, found):
                break
        return found

    def explore(self, key, arrays, affine):
        """Run short chains; return where their galaxies went, (chain, draw, galaxy)."""

        def go(state):
            path = []
            with jax.enable_x64(new_val=True):  # a thread begins with the default
                for _ in range(0, PILOT, CHUNK):
                    state, store = self.advance(state, arrays, affine, CHUNK)
                    path.append(np.asarray(store["theta"]))
            return np.concatenate(path[len(path) // 2 :])

        states = [self.start(one, arrays, affine) for one in random.split(key, PILOTS)]
        self._compile(states[0], arrays, affine)
        with ThreadPoolExecutor(PILOTS) as pool:
            return np.stack([*pool.map(go, states)])

    def _potential(self, arrays, affine):
        """Height of the posterior, of which slopes are traced once for all programs."""
        climb = partial(whitening.climb, self.hierarchy, arrays, affine)

        @jax.custom_vjp
        def potential(white):
            return climb(white)[0]

        def back(slope, change):
            return (jax.tree.map(lambda one: change * one, slope),)

        potential.defvjp(climb, back)
        return potential

    def middle(self, arrays, affine):
        """Return the galaxy and the latents in the middle of a branch."""
        still = affine["theta"], affine["z"]
        return whitening.place(self.hierarchy, arrays, affine, *still)[:2]

    def start(self, key, arrays, affine):
        """Initialise a chain near the middle of the Gaussian approximation."""
        key_point, key_chain = random.split(key)
        white = _sphere(key_point, affine)
        known = whitening.climb(self.hierarchy, arrays, affine, white)
        return self._begin(key_chain, arrays, affine, ParamInfo(white, *known))

    def _set_out(self, key, arrays, affine, known):
        return self._init(
            known,
            self.warmup,
            step_size=0.1,
            dense_mass=[("galaxy",)],
            target_accept_prob=self.target_accept,
            max_tree_depth=(WARMING if self.hierarchy.coupled else DEEPEST, DEEPEST),
            model_args=(arrays, affine),
            rng_key=key,
        )

    def _advance(self, state, arrays, affine, count):
        """Draw ``count`` (at most `CHUNK`) states; unwhiten and collect them."""

        def one(state):
            theta, z, _ = whitening.reach(self.hierarchy, arrays, affine, state.z)
            statistics = {name: getattr(state, key) for name, key in STATISTICS.items()}
            statistics["step_size"] = state.adapt_state.step_size
            sites = self.hierarchy.sites(arrays, theta, z)
            sites = {name: sites[name] for name in sites if name in self.wanted}
            return {"theta": theta, "z": z, "sites": sites, "statistics": statistics}

        def body(i, carry):
            state, store = carry
            state = self._step(state, model_args=(arrays, affine))
            state = self._hop(state, arrays, affine)
            put = lambda column, value: column.at[i].set(value)  # noqa: E731
            return state, jax.tree.map(put, store, one(state))

        like = jax.eval_shape(one, state)
        store = jax.tree.map(lambda s: jnp.zeros((CHUNK, *s.shape), s.dtype), like)
        return jax.lax.fori_loop(0, count, body, (state, store))

    def _hop(self, state, arrays, affine):
        """Let spaxels change their branches, where each may for itself."""
        if self.hierarchy.leading is None:
            return state
        key = random.fold_in(state.rng_key, 1)
        white = hops.hop(self.hierarchy, arrays, affine, key, state.z)
        value, slope = whitening.climb(self.hierarchy, arrays, affine, white)
        return state._replace(z=white, potential_energy=value, z_grad=slope)

    def chains(
        self, keys, arrays, affine, draws, progress, checkpoint=UNSAVED, first=0
    ) -> dict:
        """Run one chain per key, as many at a time as there are cores.

        Each goes on from where the checkpoint says that it was; there they are numbered
        from ``first``.  Where ``draws`` is None they end when they suffice
        (`metalgrad.stopping`).

        Returns
        -------
        dict
            Arrays with leading axes (chain, draw), by group and name; and ``every``:
            every so many draws all latents are kept.
        """
        states = [self.start(key, arrays, affine) for key in keys]
        numbered = enumerate(states, first)
        logs = [checkpoint.log(number, state) for number, state in numbered]
        self._compile(states[0], arrays, affine)
        goals, room = stopping.goals(draws), partial(checkpoint.every, chains=len(keys))
        interrupted = Event()
        with (
            tqdm(
                initial=sum(log.done for log in logs), disable=not progress, unit="draw"
            ) as bar,
            ThreadPoolExecutor(min(len(keys), os.cpu_count() or 1)) as pool,
        ):

            def chain(log, goal):
                with jax.enable_x64(new_val=True):  # a thread begins with the default
                    for start, end in self.spans(goal, log.done):
                        if interrupted.is_set():
                            break
                        stride = stopping.stride(start - self.warmup, draws, room)
                        self._go_on(log, arrays, affine, start, end, stride)
                        bar.update(end - start)
                    log.close()

            for goal in goals:
                bar.total = len(keys) * (self.warmup + goal)
                try:
                    list(pool.map(chain, logs, repeat(goal)))
                except BaseException:  # Control-C: the pool waits for its threads
                    interrupted.set()
                    raise
                if goal == goals[-1] or stopping.suffice(self.hierarchy, logs, goal):
                    break
        return join(logs, stopping.stride(goal - 1, draws, room))

    def spans(self, draws: int, done: int) -> list[tuple[int, int]]:
        """Cut the iterations from ``done`` on in chunks, warm-up apart from draws."""
        whole = self.warmup + draws
        cuts = [*range(0, self.warmup, CHUNK), *range(self.warmup, whole, CHUNK), whole]
        return [(max(start, done), end) for start, end in pairwise(cuts) if end > done]

    def _go_on(self, log, arrays, affine, start, end, stride):
        """Run a chunk of a chain; keep every latent only of some draws."""
        count, drawn, state = end - start, {}, log.state
        if start == self.warmup:
            state = _lengthen(state)
        state, store = self.advance(state, arrays, affine, count)
        if start >= self.warmup:
            chunk = jax.tree.map(lambda x: np.asarray(x[:count]), store)
            drawn = thin(chunk, start - self.warmup, stride)
        log.add(end, state, drawn)


def _sphere(key, affine):
    """White noise for galaxy and latents, not too far out."""
    keys = random.split(key)
    shapes = {"galaxy": affine["theta"].shape, "spaxel": affine["z"].shape}
    return {
        name: 0.5 * random.normal(key, shape)
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def _lengthen(state):
    """Let a chain's step, adapted by now, be one whose trajectories see their turn."""
    step = state.adapt_state.step_size
    longer = jnp.full_like(step, resonance.leave(float(step)))
    return state._replace(adapt_state=state.adapt_state._replace(step_size=longer))

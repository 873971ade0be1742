"""What a chain has come to: a log of its state and its draws, in memory or on disk."""

from time import monotonic

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

PAUSE = 5.0  # s between two writes of a chain, at least
SHARE = 0.01  # of its time that a chain may write


class Log:
    """A chain's state after some iterations, and its draws so far.

    Attributes
    ----------
    state : pytree
    done : int
        Iterations, those of warm-up too.
    parts : list of dict of str to array
        Draws, (draw, ...), in the order in which they came.
    """

    def __init__(self, state):
        self.state, self.done, self.parts = state, 0, []

    def add(self, done: int, state, draws: dict):
        """Note the state after ``done`` iterations, and what was drawn on the way."""
        self.state, self.done = state, done
        if draws:
            self.parts.append(draws)

    def take(self, name: str):
        """Hand over the draws of a name, once, so that memory holds them once."""
        return np.concatenate([part.pop(name) for part in self.parts])

    def close(self):
        """Note that nothing more comes."""


class LastingLog(Log):
    """A `Log` that keeps what it hands over, so that its chain can go on later."""

    def take(self, name):
        """As in `Log`, as often as one likes."""
        return np.concatenate([part[name] for part in self.parts])


class SavedLog(Log):
    """A `Log` that begins where that of the same name in a checkpoint ended."""

    def __init__(self, state, name: str, checkpoint):
        super().__init__(state)
        self.name, self.checkpoint = name, checkpoint
        count = len(jax.tree.leaves(state))
        while span := self._next_span():
            done, arrays = span
            leaves = [arrays.pop(f"state/{number}") for number in range(count)]
            super().add(done, _typed(leaves, state), arrays)
        self.saved, self.parts_saved = self.done, len(self.parts)
        self.due = monotonic() + PAUSE

    def _next_span(self):
        """Return the end and the arrays of the longest good span that begins here."""
        spans = self.checkpoint.folder.glob(f"{self.name}-{self.done:08d}-*.part")
        for path in sorted(spans, reverse=True):
            if arrays := self.checkpoint.read(path.name):
                return int(path.stem.split("-")[-1]), arrays
        return None

    def add(self, done, state, draws):
        """As in `Log`; and save, if that was last done a while ago."""
        super().add(done, state, draws)
        if monotonic() >= self.due:
            self._save()

    def close(self):
        """Save what is not yet."""
        if self.done > self.saved:
            self._save()

    def _save(self):
        leaves = [_plain(leaf) for leaf in jax.tree.leaves(self.state)]
        begin = monotonic()  # after waiting for the device
        arrays = {f"state/{number}": leaf for number, leaf in enumerate(leaves)}
        new = self.parts[self.parts_saved :]
        for name in new[0] if new else ():
            arrays[name] = np.concatenate([part[name] for part in new])
        span = f"{self.name}-{self.saved:08d}-{self.done:08d}.part"
        if self.checkpoint.write(span, arrays):
            self.saved, self.parts_saved = self.done, len(self.parts)
        end = monotonic()
        self.due = end + max(PAUSE, (end - begin) / SHARE)


def _is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf):
    return np.asarray(random.key_data(leaf) if _is_key(leaf) else leaf)


def _typed(values, tree):
    """Put plain arrays into the shape of a tree with keys of random numbers."""
    leaves, structure = jax.tree.flatten(tree)
    pairs = zip(values, leaves, strict=True)
    return structure.unflatten(
        random.wrap_key_data(jnp.asarray(value), impl=random.key_impl(leaf))
        if _is_key(leaf)
        else jnp.asarray(value)
        for value, leaf in pairs
    )

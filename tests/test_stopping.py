"""Chains are as long as they have to be, and the same as if that had been known."""

from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from test_checkpoint import SETTINGS, draw_maps, same

import metalgrad as mg
from metalgrad import branches, logs, stopping
from metalgrad.chains import CHUNK, Run
from metalgrad.checkpoint import KEPT, UNSAVED
from metalgrad.logs import Log
from metalgrad.thinning import join, thin

pytestmark = pytest.mark.filterwarnings(  # the chains are short
    "ignore::metalgrad.checks.ConvergenceWarning"
)
HIERARCHY = SimpleNamespace(galaxy_names=["slope", "scales"], derived=("central",))
SOME = {name: SETTINGS[name] for name in ("seed", "warmup", "chains", "progress")}


def draw_chains(change=lambda name, values: values, chains=4, draws=250, spaxels=7):
    """Logs of white noise, changed."""
    rng, found = np.random.default_rng(5), [Log(None) for _ in range(chains)]
    shapes = {"slope": (), "central": (), "scales": (2,), "metallicity": (spaxels,)}
    sites = {
        name: change(name, rng.normal(size=(chains, draws, *shape)))
        for name, shape in shapes.items()
    }
    for chain, log in enumerate(found):
        for start in range(0, draws, CHUNK):
            some = slice(start, start + CHUNK)
            part = {f"sites/{name}": v[chain, some] for name, v in sites.items()}
            log.add(start, None, part)
    return found


def apart(which):
    """Move one chain of a site by a standard deviation."""

    def change(name, values):
        if name == which:
            values[0] += 1
        return values

    return change


def sticky(which):
    """Let draws of a site follow each other."""

    def change(name, values):
        if name == which:
            values = np.cumsum(values, axis=1) / 10
            values -= values.mean(axis=1, keepdims=True)
        return values

    return change


def test_there_are_as_many_draws_as_asked_for():
    assert stopping.goals(7) == (7,)
    looks = stopping.goals(None)
    assert all(2 * one == other for one, other in pairwise(looks))
    assert all(look % CHUNK == 0 for look in looks)  # chunks end where one looks


def test_white_noise_suffices():
    assert stopping.suffice(HIERARCHY, draw_chains(), 250)


@pytest.mark.parametrize("name", ["slope", "central", "scales", "metallicity"])
@pytest.mark.parametrize("change", [apart, sticky])
def test_chains_that_disagree_or_stick_go_on(name, change):
    found = draw_chains(change(name))
    assert not stopping.suffice(HIERARCHY, found, 250)


def test_one_chain_and_what_is_not_finite_go_on():
    assert not stopping.suffice(HIERARCHY, draw_chains(chains=1), 250)

    def lose(name, values):
        return np.where(values > 3, np.nan, values) if name == "slope" else values

    assert not stopping.suffice(HIERARCHY, draw_chains(lose), 250)


def test_what_does_not_move_is_no_reason_to_go_on():
    def fix(name, values):
        return np.full_like(values, 0.3) if name == "central" else values

    assert stopping.suffice(HIERARCHY, draw_chains(fix), 250)


def test_only_the_first_draws_are_looked_at():
    """So that a fit that goes on after a kill decides as it did."""

    def spoil(name, values):
        values[0, 250:] += 1
        return values

    found = draw_chains(spoil, draws=500)
    assert stopping.suffice(HIERARCHY, found, 250)
    assert not stopping.suffice(HIERARCHY, found, 500)


@pytest.mark.parametrize("chains", [1, 2, 3, 4, 5, 8, 2 * KEPT])
@pytest.mark.parametrize("draws", [None, 10, 300, 1000])
def test_what_is_kept_is_spread_evenly_and_does_not_grow(chains, draws):
    goals = stopping.goals(draws)
    room = partial(UNSAVED.every, chains=chains)
    log, number = Log(None), np.arange(goals[-1])
    for done, goal in zip((0, *goals), goals, strict=False):
        for start in range(done, goal, CHUNK):
            some = number[start : min(start + CHUNK, goal), None]
            chunk = {"theta": some, "z": some, "statistics": {"lp": some}}
            chunk["sites"] = {"slope": some[:, 0], "line_flux": some}
            stride = stopping.stride(start, draws, room)
            log.add(start, None, thin(chunk, start, stride))
        once = Log(None)
        once.parts = [dict(part) for part in log.parts]
        last = stopping.stride(goal - 1, draws, room)
        whole = join([once], last)
        assert whole["every"] == last
        assert whole["kept"].keys() == {"theta", "z", "line_flux"}
        for values in whole["kept"].values():
            np.testing.assert_array_equal(values[0, :, 0], number[:goal:last])
        assert len(number[:goal:last]) * chains <= max(2 * KEPT, chains)


@pytest.mark.parametrize("looks", [1, 2])
def test_a_fit_is_the_same_as_one_that_knew_how_long_it_had_to_be(looks, monkeypatch):
    model, maps, left = mg.load_model("flat"), draw_maps(), [looks]

    def suffice(*_):
        left[0] -= 1
        return left[0] == 0

    monkeypatch.setattr(stopping, "suffice", suffice)
    found = mg.fit(model, maps, **SOME)
    draws = stopping.LOOKS[looks - 1]
    assert same(found, mg.fit(model, maps, draws=draws, **SOME))


def test_a_killed_fit_goes_on_whatever_its_length(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "PAUSE", 0.0)
    model, maps, looked = mg.load_model("flat"), draw_maps(), []

    def suffice(_, __, draws):
        looked.append(draws)
        if len(looked) == 2:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(stopping, "suffice", suffice)
    with pytest.raises(KeyboardInterrupt):
        mg.fit(model, maps, checkpoint=tmp_path / "fit", **SOME)
    found = mg.fit(model, maps, checkpoint=tmp_path / "fit", **SOME)
    assert looked == [250, 500, 250, 500]
    assert same(found, mg.fit(model, maps, draws=1000, **SOME))


@pytest.mark.parametrize(("count", "expected"), [(1, None), (2, stopping.LONGEST)])
def test_two_solutions_are_drawn_from_at_length(count, expected, monkeypatch):
    """Weights and crossings want more than R-hat of one branch."""
    asked = []

    def chains(_, __, ___, ____, draws, *_____):
        asked.append(draws)
        raise InterruptedError

    monkeypatch.setattr(Run, "chains", chains)
    keys = jax.random.split(jax.random.key(1))
    settings = {"integrate": branches.unseen, "chains": 4, "progress": False}
    with pytest.raises(InterruptedError):
        branches.sample(
            object.__new__(Run), {}, [{}] * count, keys, draws=None, **settings
        )
    assert asked == [expected]

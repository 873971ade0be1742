"""A fit that is killed, anywhere, goes on as if nothing had been."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import metalgrad as mg
from metalgrad import logs
from metalgrad.checkpoint import CARD, FORMAT, UNSAVED, Checkpoint, Memory
from metalgrad.inference import Shape, machine, prepare
from metalgrad.linemaps import LineMaps

pytestmark = pytest.mark.filterwarnings(  # the chains are short
    "ignore::metalgrad.checks.ConvergenceWarning"
)
WARMUP, DRAWS = 150, 160
SETTINGS = {"seed": 3, "warmup": WARMUP, "draws": DRAWS, "chains": 2}
SETTINGS |= {"target_accept": 0.9, "progress": False}
GROUPS = ("posterior", "sample_stats", "log_likelihood")
THIS = {"seed": "1", "data": "abcd"}

# A fit in a process of its own, that kills itself some time after sampling has begun.
# It writes after every chunk, and takes its time.
FIT = """
import os, signal, sys, threading, time, warnings
sys.path.insert(0, {tests!r})
import numpy as np
import metalgrad as mg
from metalgrad import logs
from test_checkpoint import SETTINGS, draw_maps

def add(self, *news, old=logs.SavedLog.add, armed=[]):
    if {delay} is not None and not armed:
        armed.append(threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGKILL)))
        armed[0].start()
    old(self, *news)
    time.sleep({pace})

logs.SavedLog.add, logs.PAUSE, logs.SHARE = add, 0.0, np.inf
warnings.simplefilter("ignore")
tree = mg.fit(mg.load_model("flat"), draw_maps(), checkpoint={folder!r}, **SETTINGS)
np.savez({out!r}, **tree.posterior, **tree.sample_stats, **tree.log_likelihood)
"""
PACE = 0.02  # s
LENGTH = 13 * PACE  # of the chains, at least


def draw_maps(seed=1, count=6):
    """Line maps of a few spaxels."""
    rng = np.random.default_rng(seed)
    flux = np.array([40.0, 20.0, 90.0, 60.0]) + rng.normal(size=(count, 4))
    position = rng.uniform(-2, 2, (count, 2))
    names = ("OII", "Hbeta", "OIII", "Halpha")
    return LineMaps(names, flux, np.ones_like(flux), position, "kpc")


@pytest.fixture(scope="module")
def model():
    return mg.load_model("flat")


@pytest.fixture(scope="module")
def kept(model, tmp_path_factory):
    """Fit, and keep each chunk; return the posterior and the folder."""
    folder = tmp_path_factory.mktemp("kept") / "fit"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "PAUSE", 0.0)
        patch.setattr(logs, "SHARE", np.inf)
        return mg.fit(model, draw_maps(), checkpoint=folder, **SETTINGS), folder


@pytest.fixture
def begun(kept, tmp_path):
    """Return a folder that knows in which coordinates to sample, and no more."""
    folder = tmp_path / "fit"
    folder.mkdir()
    for name in (CARD, "branches.part"):
        shutil.copy(kept[1] / name, folder)
    return folder


@pytest.fixture
def eager(monkeypatch):
    """Write after every chunk."""
    monkeypatch.setattr(logs, "PAUSE", 0.0)
    monkeypatch.setattr(logs, "SHARE", np.inf)


def same(one, other):
    """Tell whether two fits drew the same."""
    return all(one[group].ds.equals(other[group].ds) for group in GROUPS)


@pytest.fixture(scope="module")
def fit_apart(tmp_path_factory):
    """Fit in a process of its own; return how it ended, and the draws."""
    home = tmp_path_factory.mktemp("apart")
    compiled = {
        "JAX_COMPILATION_CACHE_DIR": str(home / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def call(folder, delay=None):
        out = home / "draws.npz"
        tests = os.path.dirname(__file__)
        script = FIT.format(
            tests=tests, folder=str(folder), delay=delay, pace=PACE, out=str(out)
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | compiled,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return done.returncode, done.stderr
        with np.load(out) as file:
            return 0, dict(file)

    return call


def survive(fit_apart, unbroken, folder, delays):
    """Kill a fit after each of some delays, then let it end; compare draws."""
    codes = []
    for delay in delays:
        code, said = fit_apart(folder, delay)
        assert code in (0, -signal.SIGKILL), said
        codes.append(code)
    code, draws = fit_apart(folder)
    assert code == 0, draws
    for group in GROUPS:
        for name, expected in unbroken[group].data_vars.items():
            np.testing.assert_array_equal(draws[name], expected, err_msg=name)
    return codes


def test_a_killed_fit_ends_with_the_same_draws(fit_apart, kept, begun):
    fractions = np.random.default_rng().uniform([0.1, 0.3, 0.1], [0.3, 0.5, 0.9])
    codes = survive(fit_apart, kept[0], begun, LENGTH * fractions)
    assert -signal.SIGKILL in codes


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(4))
def test_a_fit_killed_again_and_again_does_so_too(trial, fit_apart, kept, tmp_path):
    delays = LENGTH * np.random.default_rng().uniform(0, 0.3, 5)
    codes = survive(fit_apart, kept[0], tmp_path / "fit", delays)
    assert codes.count(-signal.SIGKILL) > 1


def test_nothing_is_written_unless_asked(model, kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert same(mg.fit(model, draw_maps(), **SETTINGS), kept[0])
    assert not list(tmp_path.iterdir())


def test_a_finished_fit_is_read_and_not_run_again(model, kept, monkeypatch):
    monkeypatch.setattr(logs.SavedLog, "add", None)
    monkeypatch.setattr(Checkpoint, "write", None)
    again = mg.fit(model, draw_maps(), checkpoint=kept[1], **SETTINGS)
    assert same(again, kept[0])


def damage(path, how):
    """Do to a file what a crash or a disk may do."""
    content = bytearray(path.read_bytes())
    if how == "cut":
        del content[-100:]
    elif how == "emptied":
        content.clear()
    elif how == "one bit":
        content[len(content) // 2] ^= 1
    elif how == "zeros":
        content[1000:] = bytes(len(content) - 1000)
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "emptied", "one bit", "zeros"])
def test_a_damaged_file_is_not_read(how, tmp_path):
    place, tree = Checkpoint(tmp_path, THIS), {"z": jnp.arange(600.0)}
    structure = jax.tree.structure(tree)
    assert place.recall("x", structure, lambda: tree) is tree
    np.testing.assert_array_equal(place.recall("x", structure, None)["z"], tree["z"])
    damage(tmp_path / "x.part", how)
    assert place.read("x.part") is None
    assert place.recall("x", structure, lambda: tree) is tree
    assert place.read("x.part") is not None


def test_a_chain_goes_on_from_its_last_good_file(model, kept, tmp_path):
    folder = shutil.copytree(kept[1], tmp_path / "fit")
    damage(folder / "chain0-00000025-00000050.part", "cut")  # in warm-up
    damage(folder / "chain1-00000300-00000310.part", "one bit")
    (folder / "chain1-00000300-00000310.part.new").write_bytes(b"half")
    assert same(mg.fit(model, draw_maps(), checkpoint=folder, **SETTINGS), kept[0])


@pytest.mark.usefixtures("eager")
def test_an_interrupted_fit_stops_at_once_and_goes_on_later(
    model, kept, begun, monkeypatch
):
    def add(self, done, *news, old=logs.SavedLog.add):
        if self.name == "chain0" and done > WARMUP:
            raise KeyboardInterrupt
        old(self, done, *news)
        time.sleep(PACE)

    with monkeypatch.context() as patch:
        patch.setattr(logs.SavedLog, "add", add)
        with pytest.raises(KeyboardInterrupt):
            mg.fit(model, draw_maps(), checkpoint=begun, **SETTINGS)
    assert list(begun.glob("chain0-*-00000150.part"))
    assert not list(begun.glob(f"chain1-*-{WARMUP + DRAWS:08d}.part"))
    assert same(mg.fit(model, draw_maps(), checkpoint=begun, **SETTINGS), kept[0])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model is", {"model": mg.load_model("flat", calibration="nakajima22")}),
        ("data is", {"data": draw_maps(2)}),
        ("seed is 3, not 4", {"seed": 4}),
        ("warmup is 150, not 61", {"warmup": 61}),
        ("draws is 160, not 90", {"draws": 90}),
        ("chains is 2, not 3", {"chains": 3}),
        ("target_accept is 0.9, not 0.95", {"target_accept": 0.95}),
        ("psf is .*, not None", {"psf": None}),
    ],
)
def test_another_fit_is_refused(name, change, model, kept):
    arguments = {"model": model, "data": draw_maps(), **SETTINGS, **change}
    words = rf"another fit \({name}.*\); give another path, or delete it"
    with pytest.raises(ValueError, match=words):
        mg.fit(**arguments, checkpoint=kept[1])


def test_another_version_is_refused(model, kept, tmp_path):
    folder = shutil.copytree(kept[1], tmp_path / "fit")
    card = (folder / CARD).read_text()
    (folder / CARD).write_text(card.replace(jax.__version__, "0.0.1"))
    words = rf"jax is 0.0.1, not {jax.__version__}"
    with pytest.raises(ValueError, match=words):
        mg.fit(model, draw_maps(), checkpoint=folder, **SETTINGS)


def test_another_format_is_refused(model, kept, tmp_path):
    """As one is that says of none."""
    folder = shutil.copytree(kept[1], tmp_path / "fit")
    card = json.loads((folder / CARD).read_text())
    del card["format"]
    (folder / CARD).write_text(json.dumps(card))
    wanted = f"format is None, not {FORMAT}.*or delete it"
    with pytest.raises(ValueError, match=wanted):
        mg.fit(model, draw_maps(), checkpoint=folder, **SETTINGS)


def test_what_is_no_checkpoint_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for path in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(ValueError, match="no checkpoint of a fit; give another"):
            Checkpoint(path, THIS)
    (tmp_path / CARD).write_text('{"seed": ')
    with pytest.raises(ValueError, match=r"cannot be read; .* another path"):
        Checkpoint(tmp_path, THIS)


def fail(*arguments, **named):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.usefixtures("eager")
def test_a_full_disk_is_said_once_and_survived(model, kept, begun, monkeypatch):
    there = sorted(begun.iterdir())
    monkeypatch.setattr(os, "replace", fail)
    with pytest.warns(UserWarning, match="No space left .* the fit goes on") as said:
        again = mg.fit(model, draw_maps(), checkpoint=begun, **SETTINGS)
    assert len([w for w in said if "checkpoint" in str(w.message)]) == 1
    assert same(again, kept[0])
    assert sorted(begun.iterdir()) == there


@pytest.mark.parametrize("culprit", ["os.replace", "os.fsync", "np.savez"])
def test_what_is_half_written_is_taken_away(culprit, tmp_path, monkeypatch):
    place = Checkpoint(tmp_path / "fit", THIS)
    monkeypatch.setattr(f"metalgrad.checkpoint.{culprit}", fail)
    with pytest.warns(UserWarning, match="No space left"):
        assert not place.write("x.part", {"z": np.ones(2)})
    assert not place.write("x.part", {"z": np.ones(2)})  # in silence
    assert not list(tmp_path.rglob("*.*"))


def test_a_folder_that_cannot_be_made_is_survived(tmp_path):
    (tmp_path / "file").touch()
    place = Checkpoint(tmp_path / "file" / "fit", THIS)
    with pytest.warns(UserWarning, match="Not a directory"):
        assert not place.write("chain", {"x": np.zeros(2)})


def toy_state(iteration):
    """A state with what states are made of: numbers, arrays, keys."""
    key = random.fold_in(random.key(5), iteration)
    return {"key": key, "z": random.normal(key, (3,)), "old": [jnp.array(iteration)]}


def write_log(folder, iterations, done=0):
    """Take a toy chain on to some iterations, a draw in each."""
    log = Checkpoint(folder, THIS).log(0, toy_state(0))
    assert log.done == done
    for i in iterations:
        log.add(i, toy_state(i), {"z": np.full((1, 2), i)})
    return log


def drawn(log):
    return [int(z) for part in log.parts for z in part["z"][:, 0]]


@pytest.mark.usefixtures("eager")
def test_a_log_is_taken_up_where_it_ended(tmp_path):
    write_log(tmp_path, [1, 2, 3])
    log = write_log(tmp_path, [], done=3)
    assert drawn(log) == [1, 2, 3]
    same_leaves = jax.tree.map(
        lambda a, b: bool((a == b).all()), log.state, toy_state(3)
    )
    assert jax.tree.all(same_leaves)
    assert log.state["key"].dtype == toy_state(3)["key"].dtype


@pytest.mark.usefixtures("eager")
def test_what_a_full_disk_refused_is_written_later(tmp_path, monkeypatch):
    log = write_log(tmp_path, [1, 2])
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.warns(UserWarning, match="No space left"):
            log.add(3, toy_state(3), {"z": np.full((1, 2), 3)})
    assert drawn(write_log(tmp_path, [], done=2)) == [1, 2]
    log.add(4, toy_state(4), {"z": np.full((1, 2), 4)})
    assert drawn(write_log(tmp_path, [], done=4)) == [1, 2, 3, 4]


def test_writing_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(logs, "monotonic", lambda: clock.now)
    place, written = Checkpoint(tmp_path, THIS), []

    def write(name, arrays):
        clock.now += 0.5  # a slow disk
        written.append(name)
        return True

    monkeypatch.setattr(place, "write", write)
    log = place.log(0, toy_state(0))
    for i in range(1, 2001):
        clock.now += 0.1
        log.add(i, toy_state(0), {})
    assert 3 <= len(written) <= 5
    assert not place.folder.joinpath(CARD).exists()


def test_a_file_of_another_fit_is_not_read(tmp_path):
    assert Checkpoint(tmp_path / "a", THIS).write("x", {"z": np.ones(2)})
    assert Checkpoint(tmp_path / "b", THIS | {"seed": "2"}).write("y", {})
    shutil.copy(tmp_path / "a" / "x", tmp_path / "b" / "x")
    assert Checkpoint(tmp_path / "b", THIS | {"seed": "2"}).read("x") is None
    assert Checkpoint(tmp_path / "a", THIS).read("x").keys() == {"z"}


def test_chains_go_on_as_if_they_had_not_stopped(model):
    data, memory = prepare(model, draw_maps()), Memory()
    with jax.enable_x64(new_val=True):
        run = machine(model, Shape.of(data), WARMUP, SETTINGS["target_accept"])
        affine = run.coordinates(data.arrays, random.key(1))
        keys = random.split(random.key(2), 2)

        def draw(count, kept):
            settings = {"progress": False, "checkpoint": kept}
            return run.chains(keys, data.arrays, affine, count, **settings)

        begun, whole = draw(40, memory), draw(DRAWS, UNSAVED)  # 40: no whole chunks
        longer = draw(DRAWS, memory)
    assert memory.logs[0].done == WARMUP + DRAWS
    jax.tree.map(np.testing.assert_array_equal, longer, whole)
    first = jax.tree.map(lambda part: part[:, :40], longer["sites"])
    jax.tree.map(np.testing.assert_array_equal, begun["sites"], first)

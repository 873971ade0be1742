"""Calibration by simulation: small enough to run, and complete."""

import json
from dataclasses import replace

import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose

import metalgrad as mg
from metalgrad import ranks
from metalgrad.textures import Smooth

TINY = {"spaxels": 2, "warmup": 60, "draws": 60, "chains": 2, "progress": False}


def entry(number, **given):
    return {
        "replica": number, "truth": {"slope": 0.1 * number}, "rank": {"slope": 7},
        "mean": {"slope": 0.0}, "sd": {"slope": 0.05}, "r_hat": 1.0, "diverging": 0.02,
        "again": False, "converged": True, "seconds": 1.0,
    } | given  # fmt: skip


def test_galaxies_are_drawn_fitted_and_ranked(tmp_path):
    model = replace(mg.load_model("flat-independent"), rho=dist.Delta(0.5))
    table = mg.sbc(model, out=tmp_path / "one", seed=5, n=3, **TINY)
    names = {"level", "scatter", "reddening", "clumpiness", "log_likelihood"}
    assert names <= {*table["parameter"]}
    assert "rho" not in table["parameter"]  # is fixed
    assert table.meta["galaxies"] == 3
    assert set(table["replicas"]) == {3 - table.meta["failed"]}
    # Killed after the second, within its last line, it ends with the same ranks.
    path = tmp_path / "one" / ranks.LEDGER
    whole = path.read_text()
    path.write_text(whole[: whole.index("\n", whole.index('"replica": 1')) - 9])
    again = mg.sbc(model, out=tmp_path / "one", seed=5, n=3, **TINY)
    assert len(path.read_text().splitlines()) == 4

    def timeless(text):
        lines = map(json.loads, text.splitlines())
        return [{k: v for k, v in one.items() if k != "seconds"} for one in lines]

    assert timeless(path.read_text()) == timeless(whole)
    assert [*again["p_uniform"]] == [*table["p_uniform"]]


def test_what_failed_or_did_not_converge_is_counted():
    entries = [entry(number) for number in range(6)]
    entries[1] = {"replica": 1, "truth": {"slope": 9.0}, "failed": "ValueError: no"}
    entries[2] = entry(2, converged=False, again=True)
    table = ranks.summarise(entries, seed=1)
    counts = {n: table.meta[n] for n in ("galaxies", "failed", "unconverged", "again")}
    assert counts == {"galaxies": 6, "failed": 1, "unconverged": 1, "again": 1}
    assert table["replicas"][0] == 5
    truths = [0.0, 0.2, 0.3, 0.4, 0.5]
    assert_allclose(table["contraction"][0], 1 - 0.05**2 / np.var(truths))
    said = ranks.tell(table)
    assert "1 fits failed" in said
    assert "1 of 1 parameters leave the 95 % band (slope)" in said


def test_nothing_to_tabulate_is_told_with_the_reason():
    failed = [
        {"replica": n, "truth": {}, "failed": "ValueError: no mode"} for n in "ab"
    ]
    with pytest.raises(ValueError, match=r"0 of 2 fits gave ranks.*no mode"):
        ranks.gather(failed, seed=1)


def test_the_table_template_is_a_disc_that_fades():
    model = mg.load_model("gradient-independent")
    maps = ranks.template(model, 400, seed=2)
    again = ranks.template(model, 400, seed=2)
    assert len(maps) == 400
    assert_allclose(maps.flux, again.flux)
    brightness = maps.flux[:, maps.lines.index("OIII")]
    assert_allclose(np.log(30 / brightness), maps.radius)  # scale length 1 kpc
    # Of a uniform disc a quarter lies within half the radius.
    inside = np.mean(maps.radius < 1.5)
    assert_allclose(inside, 0.25, atol=3 * np.sqrt(0.25 * 0.75 / 400))


@pytest.mark.slow  # simulates a cube
def test_a_model_of_smooth_structure_gets_a_cube():
    model = replace(mg.load_model("gradient-independent"), texture=Smooth())
    spaxels = ranks.template(model, 60, seed=2)
    assert isinstance(spaxels, mg.Spaxels)
    assert abs(len(spaxels) - 60) < 12

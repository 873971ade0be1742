import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from metalgrad import bench
from metalgrad.cli import app

ABOUT = {"device": "cpu: toy", "cores": 2, "load": 0.0, "date": "2026-01-01T00:00:00"}
ABOUT |= {"python": "3.13", "versions": {"jax": "1"}, "commit": "abc"}
MOMENTS = {name: [0.0, 0.01, 1.0, 0.01] for name in ("slope", "level", "scatter")}
TRIALS = (bench.Trial("table", 9, ("metalgrad", "numpyro", "nutpie", "emcee")),)


def toy(task, device, limit):
    """Rows as of a run in which a gradient's time goes with the number of spaxels."""
    if task["task"] == "gradient":
        row = {"size": task["size"], "bits": task["bits"], "memory": 0.5}
        row |= {"median": 1e-6 * task["size"], "best": 1e-6, "compilation": 1.0}
        return {"about": ABOUT, "row": row | {"slope": [1.0, 2.0]}}
    row = {key: task[key] for key in ("case", "size", "rival")} | {"spaxels": 9}
    if task["rival"] == "nutpie":
        return {"about": ABOUT, "row": row | {"skipped": "not installed"}}
    if task["rival"] == "emcee":
        return {"about": None, "row": row | {"failed": "no draw within 9 s"}}
    speed = {"metalgrad": 1.0, "numpyro": 20.0}[task["rival"]]
    row |= {"ess": 800.0, "worst": "rho", "r_hat": 1.0, "draws": 500, "memory": 1.0}
    row |= {"moments": MOMENTS, "warmup": 2 * speed, "sampling": 4 * speed}
    return {"about": ABOUT, "row": row | {"compilation": 10.0}}


@pytest.fixture
def result(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "measure", toy)
    bench.bench(out=tmp_path, trials=TRIALS, echo=lambda _: None)
    return json.loads((tmp_path / "rivals_cpu.json").read_text())


def test_the_result_is_whole(result):
    ours, theirs, absent, late = result["rows"]
    assert ours["seconds"] == 2 + 4 * 400 / 800
    assert ours["cold"] == 14
    assert theirs["ratio"] == 20
    assert theirs["because"] == ""
    assert not theirs["extrapolated"]
    assert absent["skipped"] == "not installed"
    assert late["because"] == "no draw within 9 s"
    assert "seconds" not in late
    assert result["about"] == ABOUT
    assert result["exponent"] == pytest.approx(1.0)
    assert [row["size"] for row in result["gradient"]] == [*bench.SIZES, 400]


def test_a_run_that_is_cut_leaves_what_it_has(tmp_path, monkeypatch):
    def cut(task, device, limit):
        if task.get("rival") == "numpyro":
            raise KeyboardInterrupt
        return toy(task, device, limit)

    monkeypatch.setattr(bench, "measure", cut)
    with pytest.raises(KeyboardInterrupt):
        bench.bench(out=tmp_path, trials=TRIALS, echo=lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["rivals_cpu.json"]
    found = json.loads((tmp_path / "rivals_cpu.json").read_text())
    assert [row["rival"] for row in found["rows"]] == ["metalgrad"]


def test_a_wrong_posterior_does_not_count():
    reference, row = (
        toy({"task": "sample", "case": "table", "size": 9, "rival": name}, "", 0)["row"]
        for name in ("metalgrad", "numpyro")
    )
    row["moments"] = MOMENTS | {"slope": [0.2, 0.01, 1.0, 0.01]}
    judged, _ = bench.judge(row, reference)
    assert "mean of slope" in judged["because"]
    assert "not comparable" in bench.tell(judged)


def test_few_draws_are_an_extrapolation():
    row = toy(
        {"task": "sample", "case": "table", "size": 9, "rival": "metalgrad"}, "", 0
    )["row"]
    judged, _ = bench.judge(row | {"ess": 100.0}, None)
    assert judged["extrapolated"]
    assert judged["seconds"] == 2 + 4 * 4
    assert "by extrapolation" in bench.tell(judged)


def test_a_power_law_is_found():
    sizes = np.array([25, 400, 1600, 6400])
    rows = [{"size": s, "bits": 64, "median": 1e-3 + s**1.2} for s in sizes]
    rows[0]["median"] = 1e9  # small ones do not count
    assert bench.exponent(rows) == pytest.approx(1.2, abs=1e-3)
    assert bench.exponent(rows[:2]) is None


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("pass", ""),
        ("import time; time.sleep(60)", "no draw within 1 s"),
        ("raise ValueError('no such thing')", "it failed: ValueError: no such thing"),
    ],
)
def test_a_process_that_comes_to_nothing_says_why(code, reason):
    # -I -S: Python alone starts in no time.
    command = [sys.executable, "-I", "-S", "-c", code]
    found = bench._run(command, os.environ, 1.0 if "sleep" in code else 30.0)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_elsewhere_than_in_a_clone_it_wants_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "benchmarks" / "results")
    with pytest.raises(ValueError, match=r"not a clone.*--out"):
        bench.place(None)
    assert bench.place(tmp_path) == tmp_path


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(bench, "_run", lambda *_: "it failed: AssertionError")
    with pytest.raises(ValueError, match=r"no cuda device.*--device cpu"):
        bench.check_device("cuda")


def test_the_command_passes_on_what_it_is_told(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(bench, "_run", lambda *_: "")
    monkeypatch.setattr(
        "metalgrad.cli_bench.bench", lambda device, **given: asked.update(given)
    )
    done = CliRunner().invoke(
        app, ["bench", "--quick", "--out", str(tmp_path), "--limit", "7"]
    )
    assert done.exit_code == 0
    assert asked["limit"] == 7
    assert asked["quick"]
    assert asked["out"] == tmp_path


@pytest.fixture
def report():
    path = Path(__file__).parents[1] / "benchmarks" / "report.py"
    spec = importlib.util.spec_from_file_location("report", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_report_has_every_row_and_leaves_the_rest_alone(
    result, report, tmp_path, monkeypatch
):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    monkeypatch.setattr(report, "README", readme)
    monkeypatch.setattr(report, "PICTURE", tmp_path / "rivals.png")
    report.main(str(tmp_path))
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| NumPyro NUTS, the same model | 80.0 | 90.0 | 20.0 |" in text
    assert "skipped: not installed" in text
    assert "no: no draw within 9 s" in text
    assert "### CUDA\n\nNo run" in text
    assert (tmp_path / "rivals.png").stat().st_size > 1000


def test_a_readme_without_marks_is_not_touched(report):
    with pytest.raises(ValueError, match="bench: begin"):
        report.replace("nothing here", "new")

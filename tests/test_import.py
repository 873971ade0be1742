"""Importing metalgrad is quiet, light, and changes nothing for the caller."""

import json
import subprocess
import sys

import pytest

HEAVY = ["matplotlib", "corner", "jwst", "bagpipes", "nautilus", "dask", "distributed"]

SCRIPT = """
import json, sys
import jax

before = dict(jax.config.values)
import metalgrad

assert metalgrad.__file__, "a folder of that name was found, not the package"
after = dict(jax.config.values)
changed = sorted(key for key in after if before.get(key) != after[key])
with open(sys.argv[1], "w") as report:
    json.dump({"changed": changed, "modules": sorted(sys.modules)}, report)
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Import metalgrad in an interpreter of its own, away from the checkout."""
    folder = tmp_path_factory.mktemp("import")
    report = folder / "report.json"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(report)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run, json.loads(report.read_text())


@pytest.mark.parametrize("name", HEAVY)
def test_import_is_light(fresh, name):
    _, report = fresh
    assert name not in report["modules"]


def test_import_is_quiet(fresh):
    run, _ = fresh
    assert (run.stdout, run.stderr) == ("", "")


def test_import_leaves_jax_alone(fresh):
    _, report = fresh
    assert report["changed"] == []

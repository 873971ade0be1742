"""The command reduce: what it passes on, what it refuses, and what it says."""

import pytest
from astropy.coordinates import SkyCoord

from metalgrad import cli, cli_reduce
from metalgrad.reduction import STEPS


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command with a reduction that only notes how it was called."""
    monkeypatch.setattr(cli, "_keep_compiled", lambda: None)
    calls = []

    def reduce(target, out, **settings):
        calls.append((target, settings))
        return out / f"{target.name}_s3d.fits"

    monkeypatch.setattr(cli_reduce, "reduce", reduce)

    def call(*arguments):
        line = ["metalgrad", "reduce", *arguments, "--out", tmp_path / "reduced"]
        monkeypatch.setattr("sys.argv", [*map(str, line)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr(), calls

    return call


def test_what_is_left_out_is_as_in_the_paper(run, tmp_path):
    code, said, _, [(target, settings)] = run("cosmos24108")
    assert (code, target.name) == (0, "cosmos24108")
    assert settings == {
        "program": 1893, "steps": [*STEPS], "version": "", "context": "",
        "background": True, "spaxel": 0.05, "clip": 5.0, "parameters": None,
    }  # fmt: skip
    assert f"written to {tmp_path / 'reduced' / 'cosmos24108_s3d.fits'}" in said


def test_options_are_passed_on(run, tmp_path):
    table = tmp_path / "own.toml"
    table.write_text("[spec3.outlier_detection]\nthreshold_percent = 99.5\n")
    code, *_, [(target, settings)] = run(
        "bdf-3299", "--pid", 1433, "--steps", "spec3, clip", "--jwst", "3.0.0",
        "--context", "jwst_1094.pmap", "--no-background", "--spaxel", 0.1,
        "--clip", 4, "--center", "10:00:47.33 +02:28:43.14", "--parameters", table,
    )  # fmt: skip
    assert code == 0
    assert settings == {
        "program": 1433, "steps": ["spec3", "clip"], "version": "3.0.0",
        "context": "jwst_1094.pmap", "background": False, "spaxel": 0.1, "clip": 4.0,
        "parameters": {"spec3": {"outlier_detection": {"threshold_percent": 99.5}}},
    }  # fmt: skip
    place = SkyCoord("10h00m47.33s +02d28m43.14s")
    assert target.position.separation(place).arcsec < 1e-6


def test_what_is_wrong_is_one_sentence(run, tmp_path):
    table = tmp_path / "own.toml"
    table.write_text("[spec3\n")
    for arguments, words, status in (
        (["cosmos24108", "--parameters", table], "own.toml is not TOML", 1),
        (["cosmos24108", "--parameters", tmp_path / "no.toml"], "no.toml", 1),
        (["no-such-target"], "no-such-target", 1),
        (["cosmos24108", "--center", "north"], "--center 'north' cannot be read", 1),
        (["cosmos24108", "--spaxel", 0], "spaxel", 2),
    ):
        code, _, wrong, calls = run(*arguments)
        assert (code, calls) == (status, [])
        assert words in wrong
        assert "Traceback" not in wrong

"""The command sbc: its files and its words; the fits themselves are left out."""

import numpy as np
import pytest
from astropy.table import Table

from metalgrad import cli, ranks


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command with trials that cost nothing; count them."""
    monkeypatch.setattr(cli, "_keep_compiled", lambda: None)
    trials = []

    def trial(*_, key, draws, chains, brightest):
        assert brightest == 1e3
        trials.append((draws, chains))
        number = len(trials)
        if number == 3:
            return {"truth": {"slope": 0.1}, "failed": "ValueError: no mode"}
        place = np.random.default_rng(number).integers(100)
        return {
            "truth": {"slope": 0.01 * number}, "rank": {"slope": int(place)},
            "mean": {"slope": 0.1}, "sd": {"slope": 0.001}, "ess": {"slope": 100.0},
            "r_hat": 1.0, "diverging": 0.0, "again": number == 2,
            "converged": number != 2, "seconds": 2.0,
        }  # fmt: skip

    monkeypatch.setattr(ranks, "rank_one", trial)

    def call(*arguments):
        line = ["metalgrad", "sbc", *arguments, "--out", tmp_path / "sbc"]
        monkeypatch.setattr("sys.argv", [*map(str, line)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr(), trials

    return call


def test_it_writes_table_and_picture_and_goes_on(run, tmp_path):
    model = ["flat-independent", "--spaxels", 3, "--seed", 4, "--draws", 40]
    code, said, _, trials = run(*model, "--n", 12)
    assert (code, len(trials), trials[0]) == (0, 12, (40, 2))
    assert "12 galaxies: 1 fits failed and are not in the table, 1 did not" in said
    table = Table.read(tmp_path / "sbc" / "coverage.ecsv")
    assert [*table["parameter"]] == ["slope"]
    assert (table["replicas"][0], table.meta["failed"]) == (11, 1)
    assert (tmp_path / "sbc" / "ranks.png").stat().st_size > 1000
    code, _, _, trials = run(*model, "--n", 15)
    assert (code, len(trials)) == (0, 15)
    code, _, wrong, _ = run(*model[:-1], 41, "--n", 15)
    assert code == 1
    assert "begun with another draws; give another folder" in wrong


def test_a_cube_needs_a_target(run, tmp_path):
    code, _, wrong, _ = run("flat", "--data", tmp_path / "cube.fits")
    assert code == 1
    assert "give --target" in wrong

"""The command line: files where they are promised, one sentence where it fails."""

from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
import typer
import xarray
from astropy.cosmology import Planck18
from astropy.io import fits
from astropy.table import Table
from typer.testing import CliRunner

import metalgrad
from metalgrad import cli, cli_fit
from metalgrad.checkpoint import Checkpoint
from metalgrad.options import aim, is_table, read_data
from metalgrad.targets import load_target

SHORT = ["--chains", "2", "--warmup", "30", "--draws", "30"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line; return exit code, standard output and error."""
    monkeypatch.setattr(cli, "_keep_compiled", lambda: None)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["metalgrad", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def table(tmp_path):
    """Write a table of line fluxes at five radii."""
    rng = np.random.default_rng(2)
    columns = {"radius": np.linspace(0.1, 1.9, 5)}
    for line, flux in (("OII", 40), ("Hbeta", 20), ("OIII", 90), ("Halpha", 60)):
        columns[line] = flux + rng.normal(size=5)
        columns[f"{line}_err"] = np.ones(5)
    path = tmp_path / "fluxes.ecsv"
    Table(columns).write(path)
    return path


def write_cube(path):
    """Write what looks like a cube at first sight."""
    flux = fits.ImageHDU(np.ones((2, 2, 2)), name="SCI")
    fits.HDUList([fits.PrimaryHDU(), flux]).writeto(path)


def test_a_table_is_fitted_and_everything_written(run, table, tmp_path):
    out = tmp_path / "fit"
    code, said, _ = run("fit", table, "--out", out, "--seed", 1, *SHORT)
    assert code == 0
    assert "slope" in said
    tree = xarray.open_datatree(out / "posterior.nc", engine="h5netcdf")
    assert {"slope", "central", "scatter", "metallicity"} <= set(tree.posterior)
    assert tree.attrs["command"].startswith("metalgrad fit")
    summary = Table.read(out / "summary.ecsv")
    assert "slope" in summary["name"]
    assert (tree.attrs["converged"], summary.meta["converged"]) == (0, False)
    assert "ESS" in tree.attrs["reasons"]  # 60 draws are not worth 100
    assert tree.attrs["reasons"].splitlines() == summary.meta["reasons"]
    assert "Converged: NO" in said
    for name in ("gradient", "corner", "trace"):
        assert (out / f"{name}.png").stat().st_size > 10_000
    assert not list(out.glob(".new-*"))
    assert not (out / "checkpoint").exists()
    code, _, error = run("fit", table, "--out", out, *SHORT)
    assert code == 1
    assert "is there already" in error
    assert "--overwrite" in error


def test_an_interrupted_fit_can_go_on(run, table, tmp_path, monkeypatch):
    def fit(story, data, *, seed, checkpoint, **_):
        Checkpoint(checkpoint, {"seed": str(seed)}).write("x.part", {})
        return SimpleNamespace(attrs={})

    def interrupt(*_):
        raise KeyboardInterrupt

    call = "fit", table, "--out", tmp_path, *SHORT
    monkeypatch.setattr(cli_fit, "fit_model", fit)
    monkeypatch.setattr(cli_fit, "write_fit", interrupt)
    assert run(*call, "--seed", 1)[0] == 130
    assert (tmp_path / "checkpoint" / "x.part").exists()
    monkeypatch.setattr(cli_fit, "write_fit", lambda *_: None)
    code, _, error = run(*call, "--seed", 2)
    assert code == 1
    assert "checkpoint of another fit (seed is 1, not 2); give another" in error
    assert run(*call, "--seed", 1)[0] == 0
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("wanted", [True, False])
def test_spaxels_are_left_out_in_earnest_if_wanted(
    run, table, tmp_path, monkeypatch, wanted
):
    fitted, settings = SimpleNamespace(attrs={}), []
    monkeypatch.setattr(cli_fit, "fit_model", lambda *_, **__: fitted)
    monkeypatch.setattr(
        cli_fit, "fit_again", lambda *a, **k: settings.append(k) or a[0]
    )
    monkeypatch.setattr(cli_fit, "write_fit", lambda *_: None)
    call = "fit", table, "--out", tmp_path, "--seed", 4, *SHORT
    assert run(*call, *["--refit"] * wanted)[0] == 0
    assert [(one["seed"], one["draws"]) for one in settings] == [(4, 30)] * wanted


def test_a_mock_is_drawn_in_the_layout_of_the_pipeline(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        cli, "simulate_cube", lambda *a, f=cli.simulate_cube, **k: f(*a, width=0.3, **k)
    )
    arguments = ("simulate", "--target", "cosmos24108", "--seed", 3, "--out", tmp_path)
    code, said, _ = run(*arguments, "--slope", -0.1)
    path = tmp_path / "cosmos24108_mock_s3d.fits"
    assert code == 0
    assert said.strip() == str(path)
    header = fits.getheader(path)
    assert header["MOCK"]
    assert header["TRUTH SLOPE"] == -0.1
    code, _, error = run(*arguments)
    assert code == 1
    assert "is there already" in error


@pytest.mark.parametrize("kind", ["models", "calibrations", "targets"])
def test_cards_are_listed(run, kind):
    code, said, _ = run("list", kind)
    expected = {"models": "flat", "calibrations": "curti23", "targets": "bdf-3299"}
    assert code == 0
    assert expected[kind] in said


def test_wrong_input_gets_one_sentence(run, table, tmp_path):
    broken = tmp_path / "broken.fits"
    broken.write_text("not a cube")
    cube = tmp_path / "s3d.fits"
    write_cube(cube)
    at = ("--redshift", 6.3, "--center", "150.1 2.4", "--radius", 0.5)
    cases = {
        "no FITS file": (broken, *at),
        "a cube needs a galaxy": (cube,),
        "cannot be read": (broken, "--redshift", 6.3, "--center", "nowhere"),
        "No such file": (tmp_path / "none.fits", *at),
        "cosmos24108": (broken, "--target", "cosmos2410"),
        "gradient": (table, "--model", "gradeint"),
        "curti23": (table, "--calibration", "curti32"),
        "no ratio of calibration": (table, "--calibration", "marino13-n2"),
        "--radius, --center say where": (table, *at[2:]),
        "--radius do nothing for a table": (table, *at),
        "--resolution do nothing for a table": (table, "--resolution", 1000),
        "--psf-scale do nothing for a table": (table, "--psf-scale", 0),
        "--slice-angle do nothing for a table": (table, "--slice-angle", 0),
    }
    for number, (words, arguments) in enumerate(cases.items()):
        code, _, error = run("fit", *arguments, "--out", tmp_path / str(number))
        assert code == 1, words
        assert words in error
        assert len(error.strip().splitlines()) == 1
        assert "Traceback" not in error


def test_another_redshift_is_another_scale():
    """In kpc per arcsec, unless it is said, too."""
    card, moved = load_target("cosmos24108"), aim("cosmos24108", 2.0, "", None, None)
    expected = Planck18.kpc_proper_per_arcmin(2.0).to_value(u.kpc / u.arcsec)
    assert moved.kpc_per_arcsec == pytest.approx(expected)
    assert moved.radius == card.radius
    assert aim("cosmos24108", 2.0, "", None, 8.0).kpc_per_arcsec == 8.0
    same = aim("cosmos24108", None, "", 0.3, None)
    assert (same.kpc_per_arcsec, same.radius) == (card.kpc_per_arcsec, 0.3)


def test_a_fits_table_is_a_table(table, tmp_path):
    path = tmp_path / "fluxes.fits"
    Table.read(table).write(path)
    assert is_table(path)
    assert len(read_data(path, None)) == 5
    cube = tmp_path / "s3d.fits"
    write_cube(cube)
    assert not is_table(cube)


def test_the_version_is_told(run):
    code, said, _ = run("--version")
    assert (code, said) == (0, f"metalgrad {metalgrad.__version__}\n")


def test_a_wrong_option_gets_one_sentence(run, table):
    for words, option in (("--psf-scale", ("--psf-scale", -1)), ("--out", ())):
        code, out, error = run("fit", table, *option)
        assert (code, out) == (2, "")
        assert words in error
        assert error.startswith("metalgrad: ")
        assert error.count("\n") == 1


@pytest.mark.parametrize("verb", ["fit", "classical", "sed", "simulate"])
def test_help_keeps_its_units(verb):
    """What is in brackets is no style of the terminal's."""
    told = CliRunner().invoke(cli.app, [verb, "--help"], env={"COLUMNS": "200"})
    declared = [
        parameter.help
        for parameter in typer.main.get_command(cli.app).commands[verb].params
        if "[" in (getattr(parameter, "help", None) or "")
    ]
    assert declared
    for text in declared:
        assert text[text.index("[") : text.index("]") + 1] in told.output

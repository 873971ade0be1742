"""The command that weighs stars: what it hands to bagpipes, and what it writes."""

import numpy as np
import pytest
import xarray
from astropy import units as u
from astropy.table import Table
from numpy.testing import assert_allclose
from typer.testing import CliRunner

import metalgrad as mg
from metalgrad import cli, cli_sed, options
from metalgrad.simulate import simulate


@pytest.fixture
def asked(monkeypatch):
    """Put a stand-in in the place of the fit; return what it was asked."""
    calls = []

    def fit(wavelength, flux, error, **given):
        calls.append({"wavelength": wavelength, "flux": flux, "error": error} | given)
        draws = np.random.default_rng(1).normal(8.0, 0.1, (1, 500))
        parts = {name: (("chain", "draw"), draws) for name in cli_sed.QUANTITIES}
        dataset = xarray.Dataset(parts)
        dataset["log_mass"].attrs["units"] = "dex(solMass)"
        given["out"].mkdir(parents=True, exist_ok=True)
        return xarray.DataTree.from_dict({"posterior": dataset})

    monkeypatch.setattr(cli_sed, "fit_sed", fit)
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    return calls


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    path = tmp_path_factory.mktemp("cube") / "mock_s3d.fits"
    simulate(mg.load_target("a2744-yd4"), seed=2, width=0.6).write(path)
    return path


def test_the_sum_of_an_aperture_is_weighed(cube, asked, tmp_path):
    arguments = ["sed", str(cube), "--target", "a2744-yd4", "--radius", "0.15"]
    arguments += ["--out", str(tmp_path / "sed"), "--lsf-scale", "0.8", "--seed", "5"]
    told = CliRunner().invoke(cli.app, arguments)
    assert told.exit_code == 0, told.output
    (call,) = asked
    whole = mg.Cube.read(cube)
    inside = mg.Spaxels.select(whole, mg.load_target("a2744-yd4"))
    near = inside.radius < 0.15 * mg.load_target("a2744-yd4").kpc_per_arcsec
    total = inside.flux[near].sum(axis=0)
    good = np.isfinite(inside.error[near]).all(axis=0)
    unit = 1e-20 * u.erg / u.s / u.cm**2 / u.um
    assert_allclose(call["flux"].to_value(unit)[good], total[good], rtol=1e-6)
    independent = np.sqrt((inside.error[near] ** 2).sum(axis=0))
    ratio = call["error"].to_value(unit)[good] / independent[good]
    assert_allclose(ratio, ratio[0])
    assert 1.0 <= ratio[0] < 1.3
    assert call["magnification"] == 2
    assert (call["seed"], call["lsf_scale"]) == (5, 0.8)
    assert call["lsf"].sigma(3.0) == inside.lsf.sigma(3.0)
    table = Table.read(tmp_path / "sed" / "summary.ecsv")
    assert list(table["name"]) == list(cli_sed.QUANTITIES)
    assert_allclose(table["q50"], 8.0, atol=0.02)
    assert "log_mass" in told.output


def test_a_cube_alone_is_refused(cube, asked, tmp_path):
    told = CliRunner().invoke(cli.app, ["sed", str(cube), "--out", str(tmp_path)])
    assert isinstance(told.exception, ValueError)
    assert "--redshift, --center" in str(told.exception)
    assert not asked

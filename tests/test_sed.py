from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
import xarray
from astropy.cosmology import FlatLambdaCDM, Planck18

from metalgrad import sed, synthesis
from metalgrad.lsf import constant, prism
from metalgrad.sed import fit_sed, stellar_mass

DENSITY = u.erg / u.s / u.cm**2 / u.AA
WAVE = np.linspace(1.0, 5.0, 40) * u.um
REDSHIFT = 7.1
THEIR_DISTANCE = FlatLambdaCDM(70, 0.3).luminosity_distance(REDSHIFT).value  # Mpc


@pytest.fixture
def runs(monkeypatch):
    """Put a stand-in in the place of bagpipes; return how often it was asked."""
    asked = []

    def sample(fitted, state, **settings):
        asked.append(settings)
        state.write_text("half a fit")

    def record(sampler, fitted, *, seed, draws):
        masses = np.random.default_rng(seed).normal(8.0, 0.1, (1, draws))
        parts = {
            "log_mass": (("chain", "draw"), masses, {"units": "dex(solMass)"}),
            "log_mass_formed": (("chain", "draw"), masses + 0.1),
            "sfr": (("chain", "draw"), np.ones((1, draws))),
            "rate": (("chain", "draw", "age"), np.ones((1, draws, 4))),
        }
        root = xarray.Dataset(attrs={"distance": THEIR_DISTANCE})
        return xarray.DataTree.from_dict(
            {"/": root, "posterior": xarray.Dataset(parts)}
        )

    monkeypatch.setattr(synthesis, "fitted_model", lambda *_: None)
    monkeypatch.setattr(synthesis, "sample", sample)
    monkeypatch.setattr(synthesis, "record", record)
    return asked


def call(folder, **changes):
    flux = np.linspace(3, 1, len(WAVE)) * 1e-20 * DENSITY
    given = {"wavelength": WAVE, "flux": flux, "error": 0.1 * flux}
    given |= {"redshift": REDSHIFT, "seed": 3, "out": folder, "progress": False}
    return fit_sed(**(given | changes))


# --- the cache --------------------------------------------------------------------


def test_the_same_call_reads_what_the_first_found(tmp_path, runs):
    first = call(tmp_path / "a" / "fit")
    second = call(str(tmp_path / "a" / "fit"))
    assert len(runs) == 1
    xarray.testing.assert_identical(first, second)
    kept = {path.name for path in (tmp_path / "a" / "fit").iterdir()}
    assert kept == {"fit.json", "posterior.nc"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 4}, "another seed; name another folder"),
        ({"redshift": 7.11}, "another redshift;"),
        ({"flux": np.linspace(3, 1.001, 40) * 1e-20 * DENSITY}, "another spectrum;"),
        ({"error": np.full(40, 1e-21) * DENSITY}, "another spectrum;"),
        ({"wavelength": WAVE * 1.001}, "another spectrum;"),
        ({"lsf_scale": 0.8}, "another lsf;"),
        ({"lsf": constant(100.0)}, "another lsf;"),
        ({"live": 200, "draws": 7}, "another draws, live|another live, draws"),
    ],
)
def test_another_fit_is_refused(tmp_path, runs, changes, words):
    call(tmp_path)
    with pytest.raises(ValueError, match=words):
        call(tmp_path, **changes)
    assert len(runs) == 1


def test_other_priors_are_refused(tmp_path, runs, monkeypatch):
    call(tmp_path)
    monkeypatch.setattr(synthesis, "A_V", (0.0, 2.0))
    with pytest.raises(ValueError, match="another priors"):
        call(tmp_path)


def test_the_same_spectrum_in_other_units_is_the_same_fit(tmp_path, runs):
    flux = np.full(40, 2.0**-66)
    call(tmp_path, flux=flux * DENSITY, error=0.5 * flux * DENSITY)
    # Of a power of two: nothing is rounded.
    twice = u.Unit(2 * DENSITY)
    call(tmp_path, flux=flux / 2 * twice, error=0.25 * flux * twice)
    assert len(runs) == 1


def test_a_fit_that_was_killed_is_gone_on_with(tmp_path, runs, monkeypatch):
    def killed(fitted, state, **settings):
        state.write_text("half a fit")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(synthesis, "sample", killed)
        with pytest.raises(KeyboardInterrupt):
            call(tmp_path)
    assert (tmp_path / "sampler.h5").read_text() == "half a fit"
    (tmp_path / "new-sampler.h5").write_text("half of half a fit")
    assert call(tmp_path)["posterior"]["log_mass"].size == 500
    assert not (tmp_path / "sampler.h5").exists()


def test_a_folder_of_something_else_is_refused(tmp_path, runs):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match=r"holds thesis\.tex and no fit of a spectrum"):
        call(tmp_path)
    with pytest.raises(ValueError, match=r"thesis\.tex is a file; name a folder"):
        call(tmp_path / "thesis.tex")
    assert not runs


def test_without_bagpipes_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bagpipes", None)
    with pytest.raises(ImportError, match=r"pip install metalgrad\[sed\]"):
        call(tmp_path / "fit")
    assert not (tmp_path / "fit").exists()


# --- cosmology and lens -----------------------------------------------------------


def test_masses_are_put_to_the_distance_of_planck(tmp_path, runs):
    found = call(tmp_path, draws=50)["posterior"]
    raw = np.random.default_rng(3).normal(8.0, 0.1, (1, 50))
    # At the same flux mass goes with the square of the distance.
    ratio = Planck18.luminosity_distance(REDSHIFT).value / THEIR_DISTANCE
    assert found["log_mass"].values == pytest.approx(raw + 2 * np.log10(ratio))
    assert found["log_mass_formed"].values == pytest.approx(
        raw + 0.1 + 2 * np.log10(ratio)
    )
    assert found["rate"].values == pytest.approx(ratio**2)
    assert 2 * np.log10(ratio) == pytest.approx(0.018, abs=1e-3)


def test_the_lens_divides_masses_and_rates_and_asks_for_no_other_fit(tmp_path, runs):
    bare = call(tmp_path)
    lensed = call(tmp_path, magnification=2.5)
    assert len(runs) == 1
    assert lensed.attrs["magnification"] == 2.5
    for name in ("log_mass", "log_mass_formed"):
        step = bare["posterior"][name].values - lensed["posterior"][name].values
        assert step == pytest.approx(np.log10(2.5))
    for name in ("rate", "sfr"):
        ratio = bare["posterior"][name].values / lensed["posterior"][name].values
        assert ratio == pytest.approx(2.5)
    xarray.testing.assert_identical(call(tmp_path), bare)


def test_the_stellar_mass_is_that_of_the_quantiles():
    # A normal law's 16 and 84 % are 0.9945 of its standard deviation from the middle.
    draws = 8.3 + 0.2 * np.random.default_rng(2).normal(size=(1, 200_000))
    posterior = xarray.Dataset({"log_mass": (("chain", "draw"), draws)})
    found = stellar_mass(xarray.DataTree.from_dict({"posterior": posterior}))
    assert found.unit == u.Msun
    expected = 8.3 + 0.2 * 0.9945 * np.array([-1, 0, 1])
    assert np.log10(found.value) == pytest.approx(expected, abs=2e-3)


# --- the door ---------------------------------------------------------------------


def test_flux_per_frequency_is_converted():
    flux = np.full(40, 30.0) * u.nJy
    table = sed._spectrum(WAVE, flux, 0.1 * flux)
    angstrom = WAVE.to_value(u.AA)
    # 1 nJy = 1e-32 erg/s/cm2/Hz; c = 2.998e18 Å/s.
    assert table[:, 1] == pytest.approx(30e-32 * 2.99792458e18 / angstrom**2)
    assert table[:, 2] == pytest.approx(0.1 * table[:, 1])
    assert table[:, 0] == pytest.approx(angstrom)


def test_channels_that_say_nothing_are_cut_off_or_ignored():
    flux = np.linspace(1, 2, 40)
    error = np.full(40, 0.1)
    flux[[0, 1, 17]] = np.nan
    error[39], error[20] = np.inf, 0.0
    table = sed._spectrum(WAVE, flux * DENSITY, error * DENSITY)
    assert table[:, 0] == pytest.approx(WAVE.to_value(u.AA)[2:39])
    assert np.isfinite(table).all()
    ignored = np.flatnonzero(table[:, 2] >= synthesis.IGNORED) + 2
    assert ignored.tolist() == [17, 20]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"redshift": 9.97},
            r"redshift is 9\.97; bagpipes has models of 0\.05 to 9\.95",
        ),
        ({"redshift": 0.03}, r"redshift is 0\.03; bagpipes has models"),
        ({"magnification": 0.0}, r"magnification is 0\.0; give a number above 0"),
        ({"flux": np.ones(39) * DENSITY}, r"shapes \(40,\), \(39,\).*one spectrum"),
        ({"wavelength": WAVE[::-1]}, "wavelength does not increase; sort"),
        ({"flux": np.full(40, np.nan) * DENSITY}, "no channel can be used; give some"),
    ],
)
def test_what_cannot_be_fitted_is_named(tmp_path, runs, changes, words):
    with pytest.raises(ValueError, match=words):
        call(tmp_path / "fit", **changes)
    assert not runs
    assert not (tmp_path / "fit").exists()


def test_another_unit_is_refused(tmp_path, runs):
    with pytest.raises(u.UnitConversionError):
        call(tmp_path / "fit", flux=np.ones(40) * u.mag)


# --- bagpipes itself --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_mock_of_bagpipes_has_its_mass_back(tmp_path, monkeypatch):
    """The mock is made with the models of the fit: the fit is tested, not they."""
    pytest.importorskip("bagpipes")
    pipes = synthesis.load()
    monkeypatch.chdir(tmp_path)
    wave = np.arange(1.0, 5.2, 0.02) * u.um
    history = {
        "massformed": 9.1,
        "metallicity": 0.2,
        "bin_edges": [0, 10, 50, 100, 300],
    }
    parts = {
        "redshift": REDSHIFT,
        "continuity": history | {"dsfr1": 0.1, "dsfr2": -0.2, "dsfr3": 0.4},
        "nebular": {"logU": -2.2},
        "dust": {"type": "Calzetti", "Av": 0.3},
        "R_curve": synthesis.resolution_curve(prism()),
    }
    with synthesis.quiet():
        model = pipes.model_galaxy(parts, spec_wavs=wave.to_value(u.AA))
    flux = model.spectrum[:, 1]
    error = np.full_like(flux, np.median(flux) / 6)
    noisy = flux + error * np.random.default_rng(11).normal(size=flux.shape)
    here = Path.cwd()
    found = fit_sed(
        wave, noisy * DENSITY, error * DENSITY, redshift=REDSHIFT, seed=2,
        out=tmp_path / "fit", live=100, effective=100, progress=False,
    )  # fmt: skip
    ratio = Planck18.luminosity_distance(REDSHIFT).value / THEIR_DISTANCE
    truth = model.sfh.stellar_mass + 2 * np.log10(ratio)
    assert np.median(found["posterior"]["log_mass"]) == pytest.approx(truth, abs=0.15)
    residual = (noisy - found["posterior"]["spectrum"].median("draw")[0]) / error
    assert float(np.mean(residual**2)) == pytest.approx(
        1, abs=4 * (2 / len(wave)) ** 0.5
    )
    assert Path.cwd() == here
    assert [path.name for path in tmp_path.iterdir()] == ["fit"]

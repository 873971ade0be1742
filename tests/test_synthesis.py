from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
from scipy.optimize import curve_fit

from metalgrad import synthesis
from metalgrad.lsf import FWHM_PER_SIGMA, constant, prism

# bagpipes leaves its grids open, and warns of what it resamples.
THEIRS = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def pipes():
    pytest.importorskip("nautilus", reason="comes with bagpipes: pip install .[sed]")
    return synthesis.load()


def model(pipes, wavelength, lsf, redshift=6.361):
    """A young galaxy, as bagpipes itself makes it."""
    history = {
        "massformed": 8.4,
        "metallicity": 0.2,
        "bin_edges": [0, 10, 50, 100, 300],
    }
    parts = {
        "redshift": redshift,
        "continuity": history | {"dsfr1": 0.1, "dsfr2": -0.2, "dsfr3": 0.7},
        "nebular": {"logU": -2.0},
        "dust": {"type": "Calzetti", "Av": 0.3},
        "R_curve": synthesis.resolution_curve(lsf),
    }
    return pipes.model_galaxy(parts, spec_wavs=wavelength)


# --- bins of age ------------------------------------------------------------------


def test_a_constant_history_has_the_rate_of_its_mass_over_its_time():
    found = synthesis.bin_rates(8.0, [0.0, 0.0, 0.0])
    assert found == pytest.approx(np.full(4, 1e8 / 300e6))


def test_steps_go_from_the_oldest_bin():
    # Rates 1 : 10 : 100 from the oldest of the bins 50-250, 20-50 and 0-20 Myr.
    unit = 10**7.5 / (200e6 + 10 * 30e6 + 100 * 20e6)
    found = synthesis.bin_rates(7.5, [1.0, 1.0], edges=(0, 20, 50, 250))
    assert found == pytest.approx([100 * unit, 10 * unit, unit])


@pytest.mark.parametrize("size", [0.3, 10.0, 200.0])
def test_rates_add_up_to_the_mass(size):
    rng = np.random.default_rng(5)
    steps, mass = size * rng.standard_t(2, (40, 3)), rng.uniform(6, 10, 40)
    rates = synthesis.bin_rates(mass, steps)
    widths = np.array([10, 40, 50, 200]) * 1e6
    assert rates @ widths == pytest.approx(10**mass)


def test_a_missing_step_is_named():
    with pytest.raises(ValueError, match="2 steps between 4 bins of age; give 3"):
        synthesis.bin_rates(8.0, [0.1, 0.2])


# --- the spectrograph -------------------------------------------------------------


@pytest.mark.parametrize(("micron", "width"), [(3.0, 1250), (5.0, 450)])
def test_the_prism_has_the_width_that_the_paper_says(micron, width):
    # Venturi et al. (2024), Sect. 2.2: σ of about 1250 km/s at 3 µm, 450 at 5 µm.
    wave, resolution = synthesis.resolution_curve(prism()).T
    sigma = 299_792.458 / np.interp(micron * 1e4, wave, resolution) / 2.3548
    assert sigma == pytest.approx(width, rel=0.02)


def test_a_narrower_function_has_a_larger_resolution():
    curve = synthesis.resolution_curve(constant(120.0), 0.6)
    assert curve[:, 1] == pytest.approx(200.0)
    assert curve[:, 0] == pytest.approx([1e3, 3e5])


def test_an_impossible_width_is_named():
    with pytest.raises(ValueError, match=r"lsf_scale is 0\.0; give a number above"):
        synthesis.resolution_curve(prism(), 0.0)


# --- the recipe -------------------------------------------------------------------


def test_the_recipe_is_that_of_the_paper():
    found = synthesis.instructions(7.1, synthesis.resolution_curve(prism()))
    history = found["continuity"]
    assert history["bin_edges"] == [0, 10, 50, 100, 300]
    assert found["nebular"] == {"logU": (-3, 0)}
    assert found["dust"]["type"] == "Calzetti"
    assert {history[f"dsfr{i}_prior"] for i in (1, 2, 3)} == {"student_t"}
    assert "dsfr4" not in history


def test_without_bagpipes_the_cure_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bagpipes", None)
    with pytest.raises(ImportError, match=r"bagpipes.*pip install metalgrad\[sed\]"):
        synthesis.load()


# --- the sampler ------------------------------------------------------------------


def toy(calls):
    """Two independent normal parameters within a wide box, as bagpipes would say it."""
    law = scipy.stats.norm([0.3, -1.2], [0.1, 0.4])

    def likelihood(point):
        calls.append(point)
        return float(law.logpdf(point).sum())

    prior = SimpleNamespace(transform=lambda cube: 20 * cube - 10)
    return SimpleNamespace(ndim=2, prior=prior, lnlike=likelihood)


def run(state, calls, **changes):
    settings = {"seed": 4, "live": 100, "effective": 1000, "progress": False}
    return synthesis.sample(toy(calls), state, **(settings | changes))


@pytest.mark.slow
def test_the_sampler_finds_a_known_posterior(tmp_path):
    pytest.importorskip("nautilus")
    points, log_weight, _ = run(tmp_path / "state.h5", []).posterior()
    weight = np.exp(log_weight - log_weight.max())
    mean = np.average(points, axis=0, weights=weight)
    spread = np.sqrt(np.average((points - mean) ** 2, axis=0, weights=weight))
    # Four standard errors of a thousand effective draws.
    assert (np.abs(mean - [0.3, -1.2]) < 4 * np.array([0.1, 0.4]) / 1000**0.5).all()
    assert spread == pytest.approx([0.1, 0.4], rel=4 / 2000**0.5)


@pytest.mark.slow
def test_a_killed_fit_goes_on_to_the_same_draws(tmp_path, monkeypatch):
    pytest.importorskip("nautilus")
    monkeypatch.setattr(synthesis, "SLICE", 0.02)
    monkeypatch.setattr(synthesis, "SAVE", 0.0)
    whole = run(tmp_path / "whole.h5", calls := [])
    total = len(calls)

    class Killer(list):
        def append(self, point):
            if len(self) > 0.6 * total:
                raise KeyboardInterrupt
            super().append(point)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed.h5", Killer())
    again = run(tmp_path / "killed.h5", rest := [])
    assert 0 < len(rest) < 0.9 * total
    assert again.log_z == whole.log_z
    np.testing.assert_array_equal(again.posterior()[0], whole.posterior()[0])


def test_a_damaged_state_is_not_read(tmp_path, monkeypatch):
    nautilus = pytest.importorskip("nautilus")
    (tmp_path / "state.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    monkeypatch.setattr(nautilus.Sampler, "run", lambda *_, **__: True)
    sampler = run(tmp_path / "state.h5", [])
    assert sampler.n_like == 0
    assert sampler.n_live == 100


# --- bagpipes itself --------------------------------------------------------------


class TestBagpipes:
    pytestmark = THEIRS

    def test_our_bins_are_theirs(self, pipes):
        with synthesis.quiet():
            found = model(pipes, np.linspace(1e4, 5e4, 300), prism()).sfh
        ages = np.array([5, 30, 70, 200]) * 1e6
        theirs = found.sfh[[np.argmin(np.abs(found.ages - age)) for age in ages]]
        ours = synthesis.bin_rates(8.4, [0.1, -0.2, 0.7])
        # Their bins end on a grid of ages, 0.6 % wide.
        assert ours == pytest.approx(theirs, rel=0.01)

    @pytest.mark.parametrize("resolution", [100.0, 250.0])
    def test_their_line_has_the_width_of_our_function(self, pipes, resolution):
        # The window holds [O III] 5008 and 4960, and no other line of note.
        wave = np.arange(3.55e4, 3.80e4, 10.0)
        with synthesis.quiet():
            flux = model(pipes, wave, constant(resolution)).spectrum[:, 1]

        def doublet(x, height, sigma, base):
            pair = scipy.stats.norm.pdf(x, 5008.24 * 7.361, sigma)
            pair += scipy.stats.norm.pdf(x, 4960.30 * 7.361, sigma) / 2.98
            return height * pair + base

        guess = wave.mean() / resolution / FWHM_PER_SIGMA
        start = (np.sum(flux) * 10 / flux.max(), guess, 0.0)
        (_, sigma, _), _ = curve_fit(doublet, wave, flux / flux.max(), start)
        # Their own grid is 0.05 % of the wavelength wide.
        assert sigma == pytest.approx(5008.24 * 7.361 / resolution / 2.3548, rel=0.04)

    def test_their_likelihood_takes_what_it_should(self, pipes):
        wave = np.arange(1.2e4, 5.2e4, 100.0)
        with synthesis.quiet():
            flux = model(pipes, wave, prism()).spectrum[:, 1]
        error = np.full_like(flux, np.median(flux) / 5)
        shifted = flux + error
        shifted[7], error[7] = 0.0, synthesis.IGNORED
        recipe = synthesis.instructions(6.361, synthesis.resolution_curve(prism()))
        spectrum = np.column_stack([wave, shifted, error])
        fitted = synthesis.fitted_model(spectrum, recipe)
        truth = {
            "continuity:dsfr1": 0.1, "continuity:dsfr2": -0.2, "continuity:dsfr3": 0.7,
            "continuity:massformed": 8.4, "continuity:metallicity": 0.2,
            "dust:Av": 0.3, "nebular:logU": -2.0, "redshift": 6.361,
        }  # fmt: skip
        with synthesis.quiet():
            found = fitted.lnlike(np.array([truth[name] for name in fitted.params]))
        assert found == pytest.approx(-0.5 * (len(wave) - 1), rel=1e-6)

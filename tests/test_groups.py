"""Regions left out: against normal theory, and against leave-one-out by ArviZ."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import multivariate_normal, norm

import metalgrad as mg
from metalgrad import groups
from metalgrad.likelihood import from_line_maps
from metalgrad.observation import LineData
from metalgrad.textures import Independent

pytestmark = pytest.mark.filterwarnings(  # the chains are short
    "ignore::metalgrad.checks.ConvergenceWarning"
)
COUNT, WIDE, OWN = 8, 5.0, 0.7  # spaxels; prior of the line; scatter of spaxels
SHORT = {"seed": 2, "warmup": 100, "draws": 200, "chains": 2, "progress": False}
PLANE = np.stack([np.ones(COUNT), np.linspace(-1, 1, COUNT)], axis=1)
WAVES = np.array([np.sin((k + 1) * np.linspace(0.3, 2.9, COUNT)) for k in range(3)]).T


class Toy:
    """Spaxels of one line along a line; with their own scatter, or with waves."""

    name = "toy"
    texture = Independent()

    def __init__(self, kind):
        self.kind = kind

    def prepare(self, data):
        return data

    def __call__(self, data):
        wide = dist.Normal(0.0, WIDE).expand([2]).to_event(1)
        flux = PLANE @ numpyro.sample("plane", wide)
        if self.kind == "wave":
            with numpyro.plate("wave", 3):
                flux += WAVES @ numpyro.sample("weight", dist.Normal())
        with numpyro.plate("spaxel", COUNT):
            if self.kind == "spaxel":
                flux += OWN * numpyro.sample("offset", dist.Normal())
            flux = numpyro.deterministic("line_flux", flux[:, None])
            numpyro.sample("data", LineData(data, flux, jnp.ones(1)), obs=data.white)

    def covariance(self):
        common = WIDE**2 * PLANE @ PLANE.T
        own = OWN**2 * np.eye(COUNT) if self.kind == "spaxel" else WAVES @ WAVES.T
        return common + own + np.eye(COUNT)


TOYS = {kind: Toy(kind) for kind in ("spaxel", "wave")}  # each compiles but once


def draw(seed=0):
    """Fluxes with errors of 1, about 3."""
    rng = np.random.default_rng(seed)
    flux = 3 + rng.normal(0, 1.3, (COUNT, 1))
    position = np.stack([np.linspace(0.1, 2, COUNT), np.zeros(COUNT)], axis=1)
    return from_line_maps(
        SimpleNamespace(
            lines=("OIII",), flux=flux, error=np.ones((COUNT, 1)), position=position
        )
    )


def exact(flux, covariance, out):
    """Log density of some normals given the others, less that of their best fluxes."""
    rest, mean = ~out, np.zeros(len(flux))
    joint = multivariate_normal(mean, covariance).logpdf(flux)
    others = multivariate_normal(mean[rest], covariance[np.ix_(rest, rest)])
    return joint - others.logpdf(flux[rest]) - out.sum() * norm.logpdf(0)


@pytest.mark.parametrize("kind", TOYS)
@pytest.mark.parametrize("labels", [range(COUNT), [0, 0, 0, 1, 1, 1, 7, 7]])
def test_normal_theory_is_met(kind, labels):
    toy, data, labels = TOYS[kind], draw(), np.array(labels)
    found = mg.leave_groups_out(toy, data, labels, **SHORT)
    expected = [
        exact(data.white[:, 0], toy.covariance(), labels == one)
        for one in np.unique(labels)
    ]
    off = np.abs(found.elpd_i.values - expected)
    assert np.all(off < 5 * found.mc_error.values + 0.05)
    assert np.all(off < 0.3)
    assert found.elpd == pytest.approx(sum(expected), abs=0.5)
    assert found.n_data_points == len(expected) == found.n_folds


def test_what_is_hidden_says_nothing():
    data, out = draw(), np.arange(COUNT) == 3
    hidden = groups._hide(data.arrays, out)
    same = data.with_arrays(hidden)
    log_density = same.log_likelihood(jnp.full((COUNT, 1), 9.0), jnp.ones(1))
    assert log_density[3] == 0
    assert np.all(np.delete(log_density, 3) < 0)
    assert float(same.pivot) == pytest.approx(float(data.pivot))


@pytest.mark.parametrize("labels", [np.zeros(COUNT, int), np.arange(COUNT - 1)])
def test_groups_that_are_none_are_refused(labels):
    with pytest.raises(ValueError, match="two or more, of 8 spaxels, are expected"):
        mg.leave_groups_out(TOYS["spaxel"], draw(), labels, **SHORT)


def test_chains_that_disagree_are_told():
    with pytest.warns(mg.ConvergenceWarning, match=r"without block 4 the chains"):
        groups.warn_chains("block", np.array([1, 4]), np.array([1.0, 1.2]))


@pytest.mark.slow  # programs for two spectra, and for weights, are compiled
def test_groups_are_foretold_by_both_solutions(monkeypatch):
    """What is left may know less than all: [O III] and Hβ alone leave two branches."""
    told, fluxes = [], {"Hbeta": 0.0, "R3": 8.4, "R2": 8.4}
    card = mg.load_calibration("curti23")
    r3, r2 = (float(card.log_ratio(n, fluxes[n])) for n in ("R3", "R2"))
    flux = 100.0 * np.array([[1.0, 10**r3, 0.0], [1.0, 10**r3, 10**r2]])
    error = np.full((2, 3), 3.0)
    error[0, 2] = np.inf
    place = np.array([[1.0, 0.0], [2.0, 0.0]])
    maps = mg.LineMaps(("Hbeta", "OIII", "OII"), flux, error, place, "kpc")
    real = groups.sample

    def listen(*given, **settings):
        found = real(*given, **settings)
        told.append(found)
        return found

    monkeypatch.setattr(groups, "sample", listen)
    model = mg.load_model("gradient-independent")
    mg.leave_groups_out(model, maps, [0, 1], **SHORT)
    outcome, _, (branch, weights, _) = told[1]  # of what is left without [O II]
    run = outcome["kept"]["theta"].shape[1]
    assert weights.min() > 0.05
    shares = np.bincount(branch[:: len(branch) // run], minlength=2) / run
    np.testing.assert_allclose(shares, weights, atol=0.06)

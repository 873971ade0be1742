from types import SimpleNamespace

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from metalgrad import bench_rivals as rivals
from metalgrad.bench_measures import Clock, describe, disagreement
from metalgrad.bench_worker import sample

SEEN = np.array([0.3, 1.1, 0.7, -0.2])


@pytest.fixture
def _double():
    """In all threads: nutpie has its own."""
    jax.config.update("jax_enable_x64", True)  # noqa: FBT003
    yield
    jax.config.update("jax_enable_x64", False)  # noqa: FBT003


def normal():
    """Conjugate: one mean with a unit normal prior, four data of unit error."""
    level = numpyro.sample("level", dist.Normal())
    numpyro.sample("slope", dist.Normal(2.0, 0.5))
    numpyro.deterministic("scatter", abs(numpyro.sample("signed", dist.Normal())))
    numpyro.sample("seen", dist.Normal(level, 1.0), obs=SEEN)


def exact():
    """Moments in closed form, without an error."""
    half = np.sqrt(2 / np.pi)
    return {
        "level": [SEEN.sum() / 5, 0.0, 5**-0.5, 0.0],
        "slope": [2.0, 0.0, 0.5, 0.0],
        "scatter": [half, 0.0, np.sqrt(1 - half**2), 0.0],
    }


@pytest.mark.slow
@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("name", ["numpyro", "blackjax", "nutpie", "emcee"])
def test_a_rival_finds_a_posterior_known_in_closed_form(name, monkeypatch):
    if reason := rivals.missing(name):
        pytest.skip(reason)
    monkeypatch.setattr(rivals, "BATCH", 1000)
    names = "level", "slope", "scatter"
    case = SimpleNamespace(compressed=normal)
    # One chain for NumPyro, which wants a device for each.
    chains = 1 if name == "numpyro" else 2
    problem = rivals.Problem(case, names, seed=1, chains=chains, limit=60.0)
    for number, found in enumerate(rivals.RIVALS[name](problem, Clock())):
        if (found.samples and number > 5) or name == "nutpie":
            break
    assert found.samples["level"].ndim == 2
    assert found.warmup > 0
    assert found.sampling > 0
    told = describe(found.samples)
    assert told["ess"] > 200
    assert not disagreement(told["moments"], exact())


def test_a_rival_that_is_not_installed_is_skipped_with_its_reason(monkeypatch):
    monkeypatch.setattr(rivals, "find_spec", lambda _: None)
    task = {"case": "table", "size": 9, "rival": "emcee", "chains": 2, "limit": 1}
    row = sample(task | {"seed": 1}, keep=pytest.fail)
    assert row["skipped"] == "emcee is not installed: pip install 'metalgrad[bench]'"
    assert not rivals.missing("numpyro")

"""A trial: who is ranked, when chains go on, and what counts as a failure."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from metalgrad import trials
from metalgrad.likelihood import LineLikelihood
from metalgrad.replicas import LOG_LIKELIHOOD, Replica

TRUTH = {"slope": 0.3, "rho": 1.0, "shared_dispersion": np.array([0.1, -0.4])}


class Chains:
    """Chains whose posterior is a standard normal in each number, and rho is fixed."""

    def __init__(self, *spoil):
        model = SimpleNamespace(choose=lambda _: (("R3", "R2"), ()))
        names = ["slope", "shared_dispersion"]
        self.hierarchy = SimpleNamespace(
            galaxy_names=names, derived=("rho",), model=model
        )
        self.spoil, self.asked = spoil, []

    def branches(self, arrays, key):
        del arrays, key
        return [{}]

    def chains(self, keys, arrays, affine, draws, progress, *checkpoint):
        del arrays, affine, progress, checkpoint
        self.asked.append(draws)
        shape = (len(keys), draws)
        rng = np.random.default_rng(7)
        sites = {
            "slope": rng.normal(size=shape),
            "shared_dispersion": rng.normal(size=(*shape, 2)),
            "rho": np.ones(shape),
        }
        for spoil in self.spoil:
            spoil(sites, len(self.asked))
        kept = {"theta": rng.normal(size=(*shape, 1)), "z": None}
        still = np.zeros(shape, bool)
        statistics = {"diverging": still}
        return {"sites": sites, "kept": kept, "statistics": statistics, "every": 1}


@pytest.fixture
def rank(monkeypatch):
    """Rank one truth by chains of our making."""
    monkeypatch.setattr(trials, "Run", Chains)
    monkeypatch.setattr(trials, "sample", trials.sample.__wrapped__)  # takes any run
    truth = TRUTH | {LOG_LIKELIHOOD: np.array(-1.0)}
    drawn = Replica(truth, {}), 3
    monkeypatch.setattr(trials, "replicate_within", lambda *_: drawn)
    monkeypatch.setattr(
        trials, "log_likelihoods", lambda hierarchy, arrays, theta, z: theta[..., 0]
    )
    data = LineLikelihood(
        lines=("OIII",), complexes=(("OIII",),), root=np.ones((1, 1, 1)),
        white=np.ones((1, 1)), misfit=np.zeros((1, 1)), dof=np.ones((1, 1)),
        log_norm=np.zeros(1), position=np.ones((1, 2)),
    )  # fmt: skip
    inner = trials.rank_one.__wrapped__

    def call(run):
        settings = {"draws": 200, "chains": 2, "brightest": 1e3}
        return inner(run, data, key=jax.random.key(1), **settings)

    return call


def test_every_free_number_is_ranked_by_name(rank):
    run = Chains()
    found = rank(run)
    names = {"slope", "shared_dispersion[R3]", "shared_dispersion[R2]", LOG_LIKELIHOOD}
    assert {*found["rank"]} == {*found["sd"]} == {*found["ess"]} == names
    assert (found["converged"], found["again"], run.asked) == (True, False, [200])
    assert found["passed"] == 3
    # Of a standard normal 62 % lie below 0.3, and 16 % below -1.
    assert abs(found["rank"]["slope"] - 61.8) < 15
    assert abs(found["rank"][LOG_LIKELIHOOD] - 15.7) < 12


def apart(sites, asked):
    """Set two chains three standard deviations apart, the first time."""
    sites["slope"][1] += 3.0 * (asked == 1)


def apart_for_good(sites, asked):
    del asked
    sites["slope"][1] += 3.0


def test_chains_that_disagree_go_on(rank):
    run = Chains(apart)
    found = rank(run)
    assert run.asked == [200, 400]
    assert (found["again"], found["converged"]) == (True, True)


def test_chains_that_still_disagree_are_ranked_and_told(rank):
    run = Chains(apart_for_good)
    found = rank(run)
    assert run.asked == [200, 400, 800]
    assert (found["again"], found["converged"]) == (True, False)
    assert found["r_hat"] > trials.AGREE
    assert "slope" in found["rank"]


def lose(sites, asked):
    del asked
    sites["slope"][0, 3] = np.nan


def stand(sites, asked):
    del asked
    sites["slope"][:] = 0.1


def give_up(sites, asked):
    raise ValueError("no mode of the posterior was found")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lose, "draws of slope are not finite"),
        (stand, "chains of slope stand still"),
        (give_up, "ValueError: no mode"),
    ],
)
def test_a_failure_is_told_with_its_truth(rank, spoil, why):
    found = rank(Chains(spoil))
    assert why in found["failed"]
    assert "rank" not in found
    assert found["truth"]["shared_dispersion[R2]"] == -0.4

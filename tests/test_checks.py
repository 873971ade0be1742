"""Each check fires on a tree made for it, and on no other."""

import inspect
import logging
import re
import warnings

import numpy as np
import pytest
from arviz_base import from_dict
from scipy.stats import norm, rankdata

from metalgrad import checks

CHAINS, DRAWS, SPAXELS = 4, 500, 30
COMPLEXES = ["Hbeta+OIII", "NII+Halpha"]
PRIOR_SD = {"level": 0.5, "slope": 0.2, "reddening": 0.18, "noise_scale": 0.6}


def make(seed=3, attrs=None, sample_stats=None, log_likelihood=None, **posterior):
    """Make the tree of a good fit, in which some variables may be replaced."""
    rng = np.random.default_rng(seed)

    def normal(mean, sd, *shape):
        return rng.normal(mean, sd, (CHAINS, DRAWS, *shape))

    variables = {
        "level": normal(8.1, 0.03),
        "slope": normal(-0.08, 0.02),
        "central": normal(8.2, 0.03),
        "reddening": np.abs(normal(0.2, 0.02)),
        "noise_scale": normal(1.02, 0.02, len(COMPLEXES)),
        "metallicity": normal(8.1, 0.05, SPAXELS).astype(np.float32),
    }
    statistics = {
        "diverging": np.zeros((CHAINS, DRAWS), bool),
        "energy": normal(300.0, 5.0),
        "tree_steps": np.full((CHAINS, DRAWS), 15),
    }
    tree = from_dict(
        {
            "posterior": variables | posterior,
            "sample_stats": statistics | (sample_stats or {}),
            "log_likelihood": {
                "spaxel_data": normal(-10.0, 0.2, SPAXELS)
                if log_likelihood is None
                else log_likelihood
            },
        },
        dims={
            "noise_scale": ["complex"],
            "metallicity": ["spaxel"],
            "spaxel_data": ["spaxel"],
        },
        coords={"complex": COMPLEXES},
        attrs={"/": {"calibration": "curti23", "valid": [7.6, 8.9]} | (attrs or {})},
    )
    for name, value in PRIOR_SD.items():
        tree["posterior"][name].attrs["prior_sd"] = value
    return tree


def draw(mean, sd, *shape, seed=11):
    return np.random.default_rng(seed).normal(mean, sd, (CHAINS, DRAWS, *shape))


def slow(values, memory):
    """Make independent draws remember the ones before them."""
    walk = values.copy()
    for i in range(1, DRAWS):
        walk[:, i] = memory * walk[:, i - 1] + np.sqrt(1 - memory**2) * values[:, i]
    return walk


def some(count):
    """Mark ``count`` draws at random."""
    found = np.arange(CHAINS * DRAWS) < count
    return np.random.default_rng(1).permutation(found).reshape(CHAINS, DRAWS)


def shifted(size):
    return draw(-0.08, 0.02) + 0.02 * size * np.arange(CHAINS)[:, None]


def heavy():
    """Make a log likelihood with which importance sampling fails in spaxel 7."""
    values = draw(-10.0, 0.2, SPAXELS)
    values[..., 7] -= np.random.default_rng(5).exponential(3.0, (CHAINS, DRAWS))
    return values


CASES = {
    "few draws": (
        {"level": 8.1 + 0.03 * slow(draw(0, 1), 0.75)},
        r"draws are too few: the (bulk|tail) of level has \d+ .*want 400; 1 of 6",
    ),
    "divergences": (
        {"sample_stats": {"diverging": some(4)}},
        r"4 of 2000 draws \(0\.20%\) diverged.*target_accept",
    ),
    "long trees": (
        {"sample_stats": {"tree_steps": np.where(some(20), 1023, 15)}},
        r"20 of 2000 draws \(1\.00%\) took the longest path, 1023 steps",
    ),
    "energy": (
        {"sample_stats": {"energy": slow(draw(0, 5), 0.9)}},
        r"E-BFMI is 0\.\d\d .*4 of 4 chains",
    ),
    "map": (
        {"metallicity": 8.1 + 0.05 * slow(draw(0, 1, SPAXELS), 0.9)},
        r"map has not converged: in 30 of 30 spaxels",
    ),
    "range": (
        {"metallicity": draw(7.6, 0.05, SPAXELS)},
        r"of the spaxels' metallicity lie outside 7\.6 to 8\.9, where curti23",
    ),
    "central range": (
        {"central": draw(8.9, 0.05)},
        r"of the draws at the centre lie outside 7\.6 to 8\.9",
    ),
    "noise under": (
        {"noise_scale": draw([1.0, 1.8], 0.02, 2)},
        r"NII\+Halpha are underestimated by a factor of 1\.8;",
    ),
    "noise over": (
        {"noise_scale": draw([0.5, 1.0], 0.02, 2)},
        r"Hbeta\+OIII are overestimated by a factor of 2;",
    ),
    "leave one out": (
        {"log_likelihood": heavy()},
        r"Pareto k exceeds 0\.70 in 1 of 30 spaxels \(worst: \d\.\d\d in 7\)",
    ),
    "dust": (
        {"reddening": np.abs(draw(0.0, 0.3))},
        r"dust is the prior's, 1\.0\d times as wide: no Balmer pair constrains it",
    ),
    "prior": (
        {"level": draw(8.0, 0.5), "slope": draw(0.0, 0.2, seed=2)},
        r"next to nothing about level, slope: at least 0\.9",
    ),
    "nan": (
        {"slope": np.where(some(1), np.nan, draw(-0.08, 0.02))},
        r"draws of slope are not finite",
    ),
    "nan in map": (
        {"metallicity": np.where(np.arange(SPAXELS) == 4, np.nan, draw(8, 0.05, 30))},
        r"draws of metallicity are not finite",
    ),
}


def test_a_good_fit_gives_no_sentence():
    assert checks.diagnose(make()) == []


@pytest.mark.parametrize(("changes", "words"), CASES.values(), ids=CASES)
def test_each_check_fires_alone(changes, words, caplog):
    with caplog.at_level(logging.WARNING):  # where ArviZ complains
        sentences = checks.diagnose(make(**changes))
    assert len(sentences) == 1, sentences
    assert re.search(words, sentences[0]), sentences[0]
    assert not caplog.records


def test_the_worst_comes_first():
    noisy = draw([1.0, 1.8], 0.02, 2)
    sentences = checks.diagnose(make(noise_scale=noisy, log_likelihood=heavy()))
    assert [sentence.split()[0] for sentence in sentences] == ["Pareto", "errors"]


def test_chains_that_disagree():
    worst = checks.diagnose(make(slope=shifted(1.0)))[0]
    assert re.search(r"R-hat of slope is 1\.\d+ \(want at most 1\.01; 1 of 6", worst)


def test_two_modes_are_found_though_each_chain_is_perfect():
    branch = np.array([7.6, 7.6, 7.6, 8.4])[:, None]
    worst = checks.diagnose(make(level=branch + draw(0, 0.02)))[0]
    assert re.search("R-hat of level is .* two branches", worst)


def test_stuck_chains_disagree():
    stuck = np.broadcast_to(np.arange(CHAINS)[:, None] / 10 + 8.0, (CHAINS, DRAWS))
    worst = checks.diagnose(make(level=stuck.copy()))[0]
    assert re.search(r"R-hat of level is (inf|\d\S+e\+\d+) ", worst)


def test_a_constant_is_no_cause_for_alarm():
    assert checks.diagnose(make(rho=np.full((CHAINS, DRAWS), 0.5))) == []


def test_one_chain_says_so_and_no_more(caplog):
    sentences = checks.diagnose(make().isel(chain=[0]))
    assert sentences == ["one chain cannot show what it has missed; run 4 or more"]
    assert not caplog.records


@pytest.mark.parametrize("group", ["sample_stats", "log_likelihood"])
def test_what_is_not_there_is_passed_over(group):
    tree = make()
    del tree[group]
    assert checks.diagnose(tree) == []


def test_no_map_and_no_range_are_passed_over():
    tree = make()
    tree["posterior"] = tree["posterior"].to_dataset().drop_vars("metallicity")
    del tree.attrs["valid"]
    assert checks.diagnose(tree) == []


@pytest.mark.parametrize("function", [checks.diagnose, checks.warn])
def test_no_posterior_is_refused(function):
    tree = make()
    del tree["posterior"]
    with pytest.raises(ValueError, match="groups sample_stats, log_likelihood but no"):
        function(tree)


def test_warnings_blame_the_caller():
    tree = make(level=8.1 + 0.03 * slow(draw(0, 1), 0.9), slope=shifted(1.0))
    with pytest.warns(checks.ConvergenceWarning) as caught:
        inspect.unwrap(checks.warn)(tree)  # from the checks of types in these tests
    assert [str(one.message) for one in caught] == checks.diagnose(tree)
    assert {one.filename for one in caught} == {__file__}


def test_no_warning_of_a_good_fit():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checks.warn(make())


def test_every_number_has_its_name():
    tree = make()
    draws = checks.galaxy_draws(tree)
    scales = [f"noise_scale[{name}]" for name in COMPLEXES]
    assert list(draws) == ["level", "slope", "central", "reddening", *scales]
    stored = tree["posterior"]["noise_scale"].sel(complex="NII+Halpha")
    np.testing.assert_array_equal(draws["noise_scale[NII+Halpha]"], stored)


def test_prior_ratios_are_of_standard_deviations():
    tree = make()
    ratios = checks.prior_ratios(tree, checks.galaxy_draws(tree))
    assert ratios["slope"] == pytest.approx(0.02 / 0.2, rel=0.05)
    assert ratios["noise_scale[Hbeta+OIII]"] == pytest.approx(0.02 / 0.6, rel=0.05)
    assert np.isnan(ratios["central"])


def by_hand(values):
    """R-hat of one parameter after 2021BayAn..16..667V, with SciPy's ranks."""
    half = np.concatenate(np.split(values, 2, axis=1))

    def plain(x):
        z = norm.ppf((rankdata(x).reshape(x.shape) - 3 / 8) / (x.size + 1 / 4))
        within, between = z.var(axis=1, ddof=1).mean(), z.mean(axis=1).var(ddof=1)
        count = z.shape[1]
        return np.sqrt(((count - 1) / count * within + between) / within)

    return max(plain(half), plain(np.abs(half - np.median(half))))


@pytest.mark.parametrize("size", [0.0, 0.2, 2.0])
def test_r_hat_of_shifted_chains(size):
    values = shifted(size)
    assert checks.r_hat(values) == pytest.approx(by_hand(values), rel=1e-10)


@pytest.mark.parametrize("memory", [0.3, 0.6])
def test_effective_draws_of_an_autoregression(memory):
    values = slow(draw(0, 1, 20), memory)
    bulk, tail = checks.effective_draws(values)
    expected = CHAINS * DRAWS * (1 - memory) / (1 + memory)
    assert bulk.mean() == pytest.approx(expected, rel=0.05)
    assert expected < tail.mean() < CHAINS * DRAWS


def conjugate(count, draws, seed=4):
    """Draw the mean of normal data of unit variance; return its exact elpd too."""
    rng = np.random.default_rng(seed)
    data = rng.normal(0.3, 1.0, count)
    mean = rng.normal(data.mean(), count**-0.5, (CHAINS, draws))
    log_likelihood = norm.logpdf(data, mean[..., None])
    rest = (data.sum() - data) / (count - 1)
    exact = norm.logpdf(data, rest, np.sqrt(1 + 1 / (count - 1))).sum()
    return log_likelihood, exact


def test_leave_one_out_is_exact_for_a_normal_mean():
    log_likelihood, exact = conjugate(SPAXELS, DRAWS)
    result = checks.leave_one_out(make(log_likelihood=log_likelihood))
    assert result.elpd == pytest.approx(exact, abs=0.05)


def test_leave_one_out_takes_thinned_draws():
    log_likelihood, exact = conjugate(SPAXELS, DRAWS // 4)
    tree = make()
    del tree["log_likelihood"]
    thin = from_dict(
        {"log_likelihood": {"spaxel_data": log_likelihood}},
        dims={"spaxel_data": ["spaxel"]},
    )
    tree["log_likelihood"] = thin["log_likelihood"]
    assert checks.leave_one_out(tree).elpd == pytest.approx(exact, abs=0.1)


def test_leave_one_out_refuses_what_is_not_finite():
    assert checks.leave_one_out(make(log_likelihood=-np.inf * heavy())) is None


@pytest.mark.parametrize("draws", [1, 2, 5, 20])
def test_leave_one_out_of_few_draws_is_refused_and_the_fit_is_not_lost(draws):
    """ArviZ has an IndexError for four draws at most, and asks for a tail above."""
    tree = make().isel(chain=slice(1), draw=slice(draws))
    assert checks.leave_one_out(tree) is None
    said = " ".join(str(one) for one in checks.diagnose(tree))
    assert "draws are too few" in said

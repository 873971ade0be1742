"""The verdict's numbers are ArviZ's and closed forms; a bad fit never converges."""

import warnings

import arviz_stats as azs
import numpy as np
import pytest
from arviz_base import from_dict
from astropy.table import Table
from scipy.stats import genpareto, norm
from xarray import open_datatree

import metalgrad as mg
from metalgrad import checks
from metalgrad.criteria import Criterion, unmet
from metalgrad.measures import separation
from metalgrad.summary import describe, summary

CHAINS, DRAWS, SPAXELS = 4, 500, 20
CONVERGENCE = {
    "non-finite",
    "R-hat",
    "branches",
    "divergences",
    "tree depth",
    "E-BFMI",
    "bulk ESS",
    "tail ESS",
    "map ESS",
}
REST = {
    "map",
    "validity",
    "central validity",
    "noise",
    "Pareto k",
    "prior-dominated",
}


def normal(mean, sd, *shape, seed=1):
    return np.random.default_rng(seed).normal(mean, sd, (CHAINS, DRAWS, *shape))


def slow(memory, *shape, seed=6):
    """Draw stationary autoregressions of unit variance."""
    walk = normal(0, 1, *shape, seed=seed)
    for i in range(1, DRAWS):
        walk[:, i] = memory * walk[:, i - 1] + np.sqrt(1 - memory**2) * walk[:, i]
    return walk


def make(*, stats=None, likelihood=None, attrs=None, **posterior):
    """Make the tree of a good fit, in which something may be replaced."""
    variables = {
        "level": normal(8.1, 0.03, seed=2),
        "slope": normal(-0.08, 0.02, seed=3),
        "central": normal(8.2, 0.03, seed=4),
        "reddening": np.abs(normal(0.2, 0.02, seed=5)),
        "noise_scale": normal([1.02, 0.8], 0.02, 2, seed=6),
        "metallicity": normal(8.1, 0.05, SPAXELS, seed=7).astype(np.float32),
        "ebv": np.abs(normal(0.2, 0.02, SPAXELS, seed=8)),
    }
    statistics = {
        "diverging": np.zeros((CHAINS, DRAWS), bool),
        "energy": normal(300.0, 5.0, seed=9),
        "tree_steps": np.full((CHAINS, DRAWS), 15),
    }
    if likelihood is None:
        likelihood = normal(-10.0, 0.2, SPAXELS, seed=10)
    tree = from_dict(
        {
            "posterior": variables | posterior,
            "sample_stats": statistics | (stats or {}),
            "log_likelihood": {"spaxel_data": likelihood},
            "constant_data": {"y": np.arange(SPAXELS) + 3, "x": np.arange(SPAXELS) + 8},
        },
        dims={
            "noise_scale": ["complex"],
            "metallicity": ["spaxel"],
            "ebv": ["spaxel"],
            "spaxel_data": ["spaxel"],
            "y": ["spaxel"],
            "x": ["spaxel"],
        },
        coords={"complex": ["Hbeta+OIII", "NII+Halpha"]},
        attrs={"/": {"calibration": "curti23", "valid": [7.6, 8.9]} | (attrs or {})},
    )
    for name, value in {"level": 0.5, "slope": 0.2, "reddening": 0.18}.items():
        tree["posterior"][name].attrs["prior_sd"] = value
    return tree


def row(tree, criterion):
    table = mg.judge(tree).table
    return table[list(table["criterion"]).index(criterion)]


def spread(count):
    """Mark ``count`` of all draws."""
    return (np.arange(CHAINS * DRAWS) < count).reshape(DRAWS, CHAINS).T


def test_a_good_fit_passes_every_criterion():
    verdict = mg.judge(make())
    assert verdict.converged is True
    assert verdict.reasons == verdict.warnings == []
    assert verdict.table["passed"].all()
    assert {*verdict.table["criterion"]} == CONVERGENCE | REST


def test_only_chains_and_branches_are_at_stake():
    table = mg.judge(make()).table
    at_stake = np.isfinite(table["limit"])
    assert {*table["criterion"][at_stake]} == CONVERGENCE


def test_r_hat_and_effective_draws_are_those_of_arviz():
    tree = make(slope=-0.08 + 0.02 * slow(0.8), level=8.1 + 0.03 * slow(0.3))
    names = ["level", "slope", "central", "reddening", "noise_scale"]
    chosen = tree["posterior"].to_dataset()[names]

    def all_numbers(found):
        return np.concatenate([np.ravel(one) for one in found.data_vars.values()])

    for criterion, found, pick in [
        ("R-hat", azs.rhat(chosen), np.max),
        ("bulk ESS", azs.ess(chosen), np.min),
        ("tail ESS", azs.ess(chosen, method="tail", prob=(0.05, 0.95)), np.min),
    ]:
        one = row(tree, criterion)
        assert one["value"] == pytest.approx(pick(all_numbers(found)), rel=1e-9)
        assert one["where"] == "slope"


@pytest.mark.parametrize("memory", [0.5, 0.95])
def test_bulk_draws_of_an_autoregression(memory):
    one = row(make(central=8.2 + 0.03 * slow(memory, seed=20)), "bulk ESS")
    expected = CHAINS * DRAWS * (1 - memory) / (1 + memory)
    assert one["value"] == pytest.approx(expected, rel=0.35)
    assert (one["where"], one["threshold"], one["limit"]) == ("central", 400, 200)
    assert (one["passed"], one["fails"]) == (memory == 0.5, memory == 0.95)


def test_energy_of_an_autoregression():
    """The mean square step of an autoregression is 2 (1 - memory) of its variance."""
    energy = normal(300.0, 5.0)
    energy[2] = 300 + 5 * slow(0.92)[2]
    one = row(make(stats={"energy": energy}), "E-BFMI")
    assert one["where"] == "chain 2"
    assert one["value"] == pytest.approx(2 * (1 - 0.92), rel=0.35)
    assert one["fails"] == (one["value"] < 0.2)


@pytest.mark.parametrize(
    ("criterion", "statistic", "values", "counts"),
    [
        ("divergences", "diverging", (False, True), (0, 4, 11)),
        ("tree depth", "tree_steps", (511, 1023), (0, 50, 101)),
    ],
)
def test_shares_of_draws(criterion, statistic, values, counts):
    for count, passed, fails in zip(
        counts, (True, False, False), (False, False, True), strict=True
    ):
        tree = make(stats={statistic: np.where(spread(count), *values[::-1])})
        one = row(tree, criterion)
        assert one["value"] == pytest.approx(count / (CHAINS * DRAWS), abs=1e-15)
        assert (one["passed"], one["fails"]) == (passed, fails)
        assert one["where"] == f"{count} of 2000 draws"
        assert mg.judge(tree).converged is not fails


def test_pareto_k_is_that_of_the_tail():
    """Weights whose tail is Pareto's have the k of that tail."""
    tail = genpareto.ppf((np.arange(CHAINS * DRAWS) + 0.5) / (CHAINS * DRAWS), 0.9)
    weights = np.random.default_rng(3).permutation(1 + tail)
    likelihood = normal(-10.0, 0.2, SPAXELS, seed=10)
    likelihood[..., 7] = -np.log(weights).reshape(CHAINS, DRAWS)
    verdict = mg.judge(make(likelihood=likelihood))
    one = row(make(likelihood=likelihood), "Pareto k")
    assert one["value"] == pytest.approx(0.9, abs=0.1)
    assert one["threshold"] == pytest.approx(min(1 - 1 / np.log10(2000), 0.7))
    assert one["where"] == "spaxel 7, y=10 x=15"
    assert not one["passed"]
    assert verdict.converged  # it says nothing about the draws


def test_pareto_k_that_cannot_be_had_does_not_pass():
    likelihood = normal(-10.0, 0.2, SPAXELS)
    likelihood[0, 0, 4] = np.nan
    verdict = mg.judge(make(likelihood=likelihood))
    assert not verdict.table["passed"][
        list(verdict.table["criterion"]).index("Pareto k")
    ]
    assert "leave-one-out cannot be done" in verdict.warnings[0]


def test_prior_dominated_parameters_are_named_and_cost_nothing():
    tree = make(slope=normal(0, 0.19), reddening=np.abs(normal(0.9, 0.3)))
    one = row(tree, "prior-dominated")
    assert one["where"] == "slope, reddening"
    reddening = tree["posterior"]["reddening"].values
    assert one["value"] == pytest.approx(reddening.std() / 0.18)
    assert not one["passed"]
    assert mg.judge(tree).converged


def test_mass_outside_the_calibration_is_that_of_a_normal_law():
    share = 2 * norm.sf(0.2 / 0.1)  # of N(8.1, 0.1) outside 7.9 to 8.3
    tree = make(
        attrs={"valid": [7.9, 8.3]},
        metallicity=normal(8.1, 0.1, SPAXELS),
        central=normal(8.3, 0.1),
    )
    one, centre = row(tree, "validity"), row(tree, "central validity")
    assert one["value"] == pytest.approx(share, rel=0.1)
    assert one["where"] == "7.9 to 8.3"
    assert centre["value"] == pytest.approx(0.5, abs=0.05)
    assert (one["passed"], centre["passed"]) == (True, False)
    assert mg.judge(tree).converged


@pytest.mark.parametrize("distance", [1.0, 5.0])
def test_separation_is_that_of_two_normal_laws(distance):
    """Ashman's D of N(0, 1) and N(d, 2): d over the root mean square of 1 and 2."""
    rng = np.random.default_rng(2)
    means, sds = np.array([[0, distance, 0, 0]]).T, np.array([[1, 2, 1, 1]]).T
    found, upper = separation(rng.normal(means, sds, (4, 40_000)))
    assert found == pytest.approx(distance / np.sqrt(2.5), rel=0.03)
    assert list(upper) == [False, True, False, False]


@pytest.mark.parametrize("chains", [1, 2])
def test_chains_on_two_branches(chains):
    branch = np.full((CHAINS, 1), 7.7)
    branch[-chains:] = 8.5
    tree = make(level=normal(branch, 0.03))
    one = row(tree, "branches")
    assert one["value"] == pytest.approx(0.8 / 0.03, rel=0.1)
    assert one["fails"]
    assert "8.50 in chain" in one["where"]
    text = " ".join(mg.judge(tree).warnings)
    assert "two solutions, level 8.50 in chain" in text


def test_each_source_has_its_branch():
    levels = normal([8.1, 8.0], 0.03, 2)
    levels[3, :, 1] -= 0.6
    tree = make(source_level=levels)
    assert row(tree, "branches")["value"] == pytest.approx(20, rel=0.1)
    assert "7.40 in chain 3" in row(tree, "branches")["where"]


def test_one_bad_spaxel_is_enough():
    zmap = normal(8.1, 0.05, SPAXELS)
    zmap[2, :, 5] += 0.5
    tree = make(metallicity=zmap)
    verdict, one = mg.judge(tree), row(tree, "map ESS")
    assert one["where"] == "spaxel 5, y=8 x=13"
    assert not verdict.converged
    assert row(tree, "map")["passed"]  # one of twenty may fall short


def nan_at(values, value=np.nan):
    values = np.array(values)
    values[1, 3, ...] = value
    return values


def steps(size):
    return np.arange(CHAINS)[:, None] * size


def still(value):
    return np.full((CHAINS, DRAWS), value)


FROZEN = {
    "level": still(8.1),
    "slope": still(-0.1),
    "central": still(8.2),
    "reddening": still(0.2),
    "noise_scale": np.ones((CHAINS, DRAWS, 2)),
}
NEVER = {
    "chains that disagree": lambda: make(slope=normal(steps(1.0), 0.02)),
    "chains on two branches": lambda: make(level=normal(8 + steps(0.2), 0.02)),
    "chains stuck apart": lambda: make(level=still(8.0) + steps(0.1)),
    "one chain": lambda: make().isel(chain=[0]),
    "three draws": lambda: make().isel(draw=slice(3)),
    "a nan": lambda: make(slope=nan_at(normal(-0.08, 0.02))),
    "an inf": lambda: make(central=nan_at(normal(8.1, 0.02), np.inf)),
    "a nan in the map": lambda: make(metallicity=nan_at(normal(8, 0.05, SPAXELS))),
    "a nan in the dust": lambda: make(ebv=nan_at(normal(0.2, 0.05, SPAXELS))),
    "all nan": lambda: make(
        **{name: np.nan * values for name, values in FROZEN.items()}
    ),
    "a nan in the energy": lambda: make(stats={"energy": nan_at(normal(300, 5))}),
    "nothing moves": lambda: make(**FROZEN),
    "no energy moves": lambda: make(stats={"energy": still(300.0)}),
    "a map that disagrees": lambda: make(
        metallicity=normal(8.0, 0.05, SPAXELS) + steps(0.2)[..., None]
    ),
}


@pytest.mark.parametrize("case", NEVER)
def test_what_never_converges(case):
    tree = NEVER[case]()
    verdict = mg.judge(tree)
    assert verdict.converged is False
    assert verdict.reasons
    assert verdict.warnings
    assert checks.verdict_attrs(checks.examine(tree))["converged"] == 0


def test_what_the_tree_lacks_has_no_row():
    tree = make()
    for group in ("sample_stats", "log_likelihood", "constant_data"):
        del tree[group]
    del tree.attrs["valid"]
    names = {*mg.judge(tree).table["criterion"]}
    missing = {"divergences", "tree depth", "E-BFMI", "Pareto k"}
    assert names == (CONVERGENCE | REST) - missing - {"validity", "central validity"}


@pytest.mark.parametrize(
    ("value", "at_least", "passed", "fails"),
    [
        (1.0, False, True, False),
        (1.5, False, False, False),
        (2.5, False, False, True),
        (np.nan, False, False, True),
        (np.inf, False, False, True),
        (2.5, True, True, False),
        (np.nan, True, False, True),
    ],
)
def test_a_criterion_between_its_bounds(value, at_least, passed, fails):
    one = Criterion("x", value, 1.0, 2.0, at_least=at_least)
    assert (one.passed, one.fails) == (passed, fails)
    assert bool(unmet([one])) is fails


def test_a_criterion_without_a_limit_never_fails():
    assert not Criterion("x", np.nan, 1.0).fails


def test_the_attributes_survive_a_file(tmp_path):
    for tree, converged in ((make(), 1), (make().isel(chain=[0]), 0)):
        tree.attrs |= checks.verdict_attrs(checks.examine(tree))
        tree.to_netcdf(tmp_path / f"{converged}.nc", engine="h5netcdf")
        with open_datatree(tmp_path / f"{converged}.nc", engine="h5netcdf") as back:
            assert back.attrs["converged"] == converged
            assert back.attrs["reasons"] == tree.attrs["reasons"]
            assert back.attrs["reasons"].splitlines() == mg.judge(tree).reasons


def test_the_summary_keeps_the_verdict(tmp_path):
    tree = make(level=normal(8 + steps(0.2), 0.02)).isel(chain=[0])
    summary(tree).write(tmp_path / "summary.ecsv")
    meta, verdict = Table.read(tmp_path / "summary.ecsv").meta, mg.judge(tree)
    assert meta["converged"] is False
    assert meta["reasons"] == verdict.reasons
    rows = {one["criterion"]: one for one in meta["verdict"]}
    assert list(rows) == list(verdict.table["criterion"])
    assert rows["R-hat"]["value"] is None
    assert rows["R-hat"]["fails"] is True
    assert rows["bulk ESS"]["threshold"] == 100


def test_the_text_marks_what_fails():
    tree = make(slope=normal(steps(1.0), 0.02), stats={"diverging": spread(2)})
    lines = describe(tree).splitlines()
    (first,) = [i for i, line in enumerate(lines) if line.startswith("Converged")]
    assert lines[first].startswith("Converged: NO")
    marks = {line[3:20].strip(): line[:2].strip() for line in lines[first + 1 :][:15]}
    assert {*marks} == CONVERGENCE | REST
    assert marks["R-hat"] == "!!"
    assert marks["divergences"] == "!"
    assert marks["tail ESS"] == "!!"
    assert marks["E-BFMI"] == ""
    assert max(map(len, lines)) <= 79
    assert "Converged: yes\n" in describe(make())


def test_a_good_fit_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checks.warn(make(), checks.examine(make()))


def test_no_posterior_is_refused():
    tree = make()
    del tree["posterior"]
    with pytest.raises(ValueError, match="no 'posterior'; give what metalgrad"):
        mg.judge(tree)

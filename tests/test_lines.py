"""Lines, and the chains of ratios that set them: against plain arithmetic."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from metalgrad import cards, lines

pytestmark = pytest.mark.usefixtures("double_precision")

RNG = np.random.default_rng(31)

# The definitions, written out once more: what the chains must invert.
RATIOS = {
    "R2": lambda f: f["OII"] / f["Hbeta"],
    "R3": lambda f: f["OIII"] / f["Hbeta"],
    "O3O2": lambda f: f["OIII"] / f["OII"],
    "Ne3O2": lambda f: f["NeIII"] / f["OII"],
    "N2": lambda f: f["NII"] / f["Halpha"],
    "S2": lambda f: f["SII"] / f["Halpha"],
    "O3N2": lambda f: (f["OIII"] / f["Hbeta"]) / (f["NII"] / f["Halpha"]),
    "O3S2": lambda f: (f["OIII"] / f["Hbeta"]) / (f["SII"] / f["Halpha"]),
    "R3sum": lambda f: f["OIII"] * (1 + 1 / 2.984) / f["Hbeta"],
    "R23": lambda f: (f["OII"] + f["OIII"] * (1 + 1 / 2.984)) / f["Hbeta"],
    "RS32": lambda f: f["OIII"] / f["Hbeta"] + f["SII"] / f["Halpha"],
    "Rhat": lambda f: (
        (f["OII"] / f["Hbeta"]) ** 0.47 * (f["OIII"] / f["Hbeta"]) ** 0.88
    ),
    "O3_auroral": lambda f: f["OIII_4364"] / f["OIII"],
}

CHAINS = [
    ("R3", "R2", "Ne3O2"),
    ("Ne3O2", "R2", "R3"),
    ("R3", "O3O2", "Ne3O2", "S2", "N2"),
    ("O3O2", "R2"),
    ("O3N2", "N2", "O3O2"),
    ("O3N2", "R3"),
    ("O3S2", "S2", "O3_auroral"),
    ("Rhat", "R2"),
    ("Rhat", "R3"),
    ("R3sum", "R2"),
]


def draw_fluxes(count=7):
    """Random fluxes whose Balmer lines are in the ratios of case B."""
    fluxes = {name: 10 ** RNG.normal(0, 1, count) for name in lines.catalogue()}
    for name, value in lines.case_b().items():
        fluxes[name] = value * fluxes["Hbeta"]
    return fluxes


def test_catalogue_runs_from_blue_to_red():
    known = lines.catalogue()
    assert set(known) >= {"OII", "NeIII", "Hbeta", "OIII", "Halpha", "NII", "SII"}
    waves = lines.wavelengths(tuple(known))
    assert np.all(np.diff(waves) > 0)
    assert_allclose(lines.wavelengths(("OIII", "OII")), [0.500824, 0.3729875])


@pytest.mark.parametrize(
    ("name", "members", "ratio"), [("OIII", 2, 2.984), ("NII", 2, 2.942)]
)
def test_members_of_a_doublet_keep_their_ratio(name, members, ratio):
    line = lines.catalogue()[name]
    assert len(line.wavelengths) == members
    assert line.weights.max() == 1
    assert_allclose(line.weights.max() / line.weights.min(), ratio, rtol=1e-3)


@pytest.mark.parametrize("name", ["OII", "SII"])
def test_blends_count_their_total(name):
    assert_allclose(lines.catalogue()[name].weights.sum(), 1.0)


def test_case_b_is_hotter_and_flatter():
    cool, hot = lines.case_b(1e4, 100.0), lines.case_b(2e4, 100.0)
    assert cool["Hbeta"] == hot["Hbeta"] == 1.0
    assert hot["Halpha"] < cool["Halpha"]
    assert hot["Hgamma"] > cool["Hgamma"]


def test_case_b_off_the_table_is_refused():
    with pytest.raises(ValueError, match="case B at 9999 K and 100 cm-3"):
        lines.case_b(9999.0)


@pytest.mark.parametrize("name", list(cards.read("data", "ratios")))
def test_ratios_follow_their_definitions(name):
    fluxes = draw_fluxes()
    log_flux = {line: jnp.log10(jnp.array(value)) for line, value in fluxes.items()}
    expected = np.log10(RATIOS[name](fluxes))
    assert_allclose(lines.ratio(name).log10(log_flux), expected, rtol=1e-4, atol=2e-5)


def test_unknown_ratio_is_refused():
    with pytest.raises(ValueError, match=r"unknown ratio 'R4'; known are .*R3"):
        lines.ratio("R4")


@pytest.mark.parametrize("chain", CHAINS, ids="-".join)
def test_a_chain_inverts_its_ratios(chain):
    fluxes = draw_fluxes()
    tree = lines.grow_tree(chain, lines.case_b())
    ratios = np.stack([np.log10(RATIOS[name](fluxes)) for name in chain], axis=1)
    expected = [np.log10(fluxes[name] / fluxes["Hbeta"]) for name in tree.lines]
    # R3sum's weight is tabulated to five digits
    assert_allclose(tree(jnp.array(ratios)), np.stack(expected, axis=1), atol=1e-5)
    assert len(tree.lines) == len(chain) + len(lines.case_b())


def test_a_branch_keeps_the_order_asked_for():
    chain = ("R3", "R2")
    ratios = jnp.array([[0.7, 0.1], [0.3, -0.4], [0.2, 0.5]])
    names = ("Halpha", "OII", "Hbeta", "OIII")
    found = lines.grow_tree(chain, lines.case_b()).select(names)(ratios)
    halpha = np.full(3, np.log10(2.8632))
    expected = np.stack([halpha, ratios[:, 1], np.zeros(3), ratios[:, 0]], axis=1)
    assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (("R3", "R2", "O3O2"), "ratio O3O2 sets no new line: OII, OIII are set"),
        (("R3", "R3"), "ratio R3 sets no new line"),
        (("R3", "R23"), "ratio R23 is a sum of lines"),
        (("RS32", "S2"), "ratio RS32 is a sum of lines"),
        (("R3", "Ne3O2"), "Ne3O2 needs NeIII, OII"),
        (("O3N2",), "O3N2 needs NII, OIII"),
    ],
)
def test_what_no_tree_can_hold_is_refused(chain, message):
    with pytest.raises(ValueError, match=message):
        lines.grow_tree(chain, lines.case_b())


def test_balmer_lines_are_no_ratios_task():
    # Without case B there is nothing to start from but Hβ itself.
    with pytest.raises(ValueError, match="no chain of ratios reaches"):
        lines.grow_tree(("N2",), {"Hbeta": 1.0})

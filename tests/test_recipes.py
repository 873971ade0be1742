"""Names of columns as surveys write them, and sums of doublets."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from metalgrad import cards, recipes

# name of a flux column, and the line that it is
SPELLINGS = {
    "Halpha": ["Halpha", "H_alpha", "flux_Halpha", "Ha", "HALPHA", "F_Ha", "Ha-6564"],
    "Hbeta": ["Hbeta", "Hb_flux", "flux_Hbeta4861.36", "H_beta"],
    "OIII": ["OIII", "[OIII]5007", "OIII_5008", "flux_[OIII]5006.84", "OIII-5008"],
    "OII": ["OII", "flux_[OII]3727", "[OII]3728"],
    "NII": ["NII", "NII_6585", "[NII]6583", "flux_[NII]6583.45"],
    "SII": ["SII"],
    "NeIII": ["NeIII", "NeIII_3869", "[NeIII]3870"],
    "OIII_4364": ["OIII_4364", "[OIII]4363"],
    "Hgamma": ["Hgamma", "Hg", "H_gamma"],
    "Hdelta": ["Hdelta", "Hd4102"],
}
PAIRS = [(line, name) for line, names in SPELLINGS.items() for name in names]


def test_every_line_has_a_recipe():
    assert set(recipes.RECIPES) == set(cards.table("lines.ecsv")["line"])


@pytest.mark.parametrize("error", ["e_{}", "{}_err", "err_{}", "{}_error", "{}_ERR"])
@pytest.mark.parametrize(("line", "name"), PAIRS)
def test_spellings(line, name, error):
    named = error.format(name)
    assert recipes.find(["ID", name, named, "vel_Halpha"]) == {line: [(name, named)]}


@pytest.mark.parametrize(
    ("line", "members"),
    [
        ("SII", ["flux_[SII]6717", "flux_[SII]6731"]),
        ("SII", ["SII_6718", "SII_6733"]),
        ("OII", ["OII-3727", "OII-3729"]),
        ("OII", ["OII_3726", "OII_3729"]),
    ],
)
def test_members_of_a_doublet_are_added(line, members):
    errors = [f"e_{name}" for name in members]
    found = recipes.find(members + errors)
    assert found == {line: list(zip(members, errors, strict=True))}


def test_one_member_is_not_the_doublet():
    with pytest.raises(ValueError, match="no flux of SII among its columns"):
        recipes.find(["SII_6718", "SII_6718_err"], ["SII"])


def test_other_columns_are_left_alone():
    columns = ["vel_Halpha", "EW_Halpha", "e_EW_Halpha", "flux_Hbeta_sm2", "ZOH_N2"]
    columns += ["e_vel_[OIII]5007", "disp_Halpha", "flux_[OI]6300", "[OIII]4959"]
    with pytest.raises(ValueError, match=r"no flux of OII, NeIII.* among its columns"):
        recipes.find(columns)


def test_lines_come_in_the_order_asked_for():
    columns = ["Ha", "Ha_err", "Hb", "Hb_err", "NII", "NII_err"]
    assert list(recipes.find(columns, ["NII", "Halpha"])) == ["NII", "Halpha"]


@pytest.mark.parametrize(
    ("columns", "lines", "words"),
    [
        (["Ha"], ["OI"], "OI is not a line of metalgrad; name it as one of OII"),
        (["Ha", "Ha_err"], ["Hbeta"], "no flux of Hbeta among its columns Ha, Ha_err"),
        (["Ha"], None, "flux Ha of Halpha has 0 columns of errors .* name it Ha_err"),
        (["Ha", "Ha_err", "e_Ha"], None, "has 2 columns of errors where one"),
        (
            ["Ha", "Halpha", "Ha_err"],
            None,
            "columns Halpha and Ha all give Halpha; keep",
        ),
        (["Ha", "HA", "Ha_err"], None, "columns Ha and HA all give Halpha; keep one"),
    ],
)
def test_errors(columns, lines, words):
    with pytest.raises(ValueError, match=words):
        recipes.find(columns, lines)


def test_add_up_by_hand():
    found = {"Halpha": [("a", "b")], "SII": [("c", "d"), ("e", "f")]}
    nan, inf = np.nan, np.inf
    values = {
        "a": [1.0, -2.0, nan, 4.0, 5.0],
        "b": [0.5, 0.5, 0.0, nan, inf],
        "c": [1.0, 1.0, 1.0, nan, 1.0],
        "d": [3.0, 3.0, 3.0, -1.0, 3.0],
        "e": [2.0, 2.0, 2.0, 2.0, inf],
        "f": [4.0, 4.0, nan, 4.0, 4.0],
    }
    flux, error = recipes.add_up(found, {k: np.array(v) for k, v in values.items()})
    assert_allclose(flux.T, [[1, -2, 0, 0, 0], [3, 3, 0, 0, 0]])
    assert_allclose(error.T, [[0.5, 0.5, inf, inf, inf], [5, 5, inf, inf, inf]])


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_errors_must_be_positive(bad):
    values = {"a": np.ones(4), "b": np.array([1.0, np.nan, bad, bad])}
    with pytest.raises(
        ValueError, match="Halpha is zero or negative in row 2 and 1 ot"
    ):
        recipes.add_up({"Halpha": [("a", "b")]}, values)

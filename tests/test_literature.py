import numpy as np
import pytest
import xarray
from astropy.table import Table

from metalgrad import cards, literature

FOLDER = cards.folder("data") / "published"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ecsv")), ids=lambda p: p.stem)
def test_astropy_reads_the_same_table(path):
    ours, theirs = literature.published(path.stem), Table.read(path)
    assert list(ours) == theirs.colnames
    for name in theirs.colnames:
        column = theirs[name]
        if column.dtype.kind == "f":
            # A masked entry of theirs is a nan in the file.
            np.testing.assert_array_equal(ours[name], np.ma.filled(column, np.nan))
        else:
            assert ours[name].tolist() == column.tolist()


def test_an_unknown_table_is_named():
    with pytest.raises(ValueError, match=r"no published table 'galaxy'.*galaxies"):
        literature.published("galaxy")


@pytest.mark.parametrize(
    ("reference", "log_mass", "expected"),
    [
        # The formulae as the papers print them.
        ("Curti et al. (2024)", 9.0, 7.72 + 0.17),
        ("Sanders et al. (2021)", 9.5, 8.51 - 0.30 / 2),
        ("Ma et al. (2016)", 9.0, 9 - 0.35 + 0.93 * np.exp(-0.43 * 6) - 1.05),
        # Curti et al. (2020): half a dex below the knee, and far above it.
        ("Curti et al. (2020)", 9.52, 8.793 - 0.28 / 1.2 * np.log10(1 + 10**0.6)),
        ("Curti et al. (2020)", 15.0, 8.793),
    ],
)
def test_relations_are_those_of_their_papers(reference, log_mass, expected):
    table = literature.published("mass_metallicity")
    row = table[table["reference"] == reference].iloc[0]
    assert literature.mass_metallicity(row, log_mass) == pytest.approx(
        expected, abs=2e-4
    )


def test_the_main_sequence_has_its_limits():
    # At low mass, a constant specific rate (abstract of Popesso et al. 2023); at high
    # mass, 10^(2.71 - 0.186 t), with t = 13.79 Gyr (Planck18).
    low = literature.main_sequence([6.0, 7.0], 0.0)
    assert low[1] / low[0] == pytest.approx(10, rel=1e-2)
    highest = 10 ** (2.71 - 0.186 * 13.79)
    assert literature.main_sequence(14.0, 0.0) == pytest.approx(highest, rel=1e-2)


def test_the_paper_is_taken_component_by_component():
    metallicity = literature.venturi24("metallicity")
    assert {name: len(points) for name, points in metallicity.items()} == {
        "A2744-YD4": 5, "BDF-3299": 3, "COSMOS24108": 5,
    }  # fmt: skip
    assert metallicity["BDF-3299"][0] == ((7.90, 0.25, 0.13), (7.68, 0.13, 0.09))
    # An upper limit, that of YD6, is no measurement.
    assert len(literature.venturi24("sfr")["A2744-YD4"]) == 4
    gradient = literature.venturi24("gradient")
    assert gradient["COSMOS24108"] == [(6.361, (-0.03, 0.03, 0.03))]
    assert len(gradient) == 4


def test_the_paper_has_no_other_quantity():
    with pytest.raises(ValueError, match=r"no 'mass' of Venturi.*gradient"):
        literature.venturi24("mass")


def tree(**draws):
    variables = {name: (("chain", "draw"), [v]) for name, v in draws.items()}
    return xarray.DataTree.from_dict({"posterior": xarray.Dataset(variables)})


def test_measurements_come_in_many_forms():
    # Ranks 0 to 100: quantiles are known.
    draws = np.random.default_rng(3).permutation(np.arange(101.0))
    assert literature.summarise(draws) == pytest.approx((50, 34, 34))
    found = literature.summarise(tree(level=draws), "level", "central")
    assert found == pytest.approx((50, 34, 34))
    assert literature.summarise(tree(central=draws**2), "level", "central") == (
        pytest.approx((2500, 84**2 - 2500, 2500 - 256))
    )
    assert literature.summarise((8.1, 0.2)) == (8.1, 0.2, 0.2)
    assert literature.summarise((8.1, 0.2, 0.3)) == (8.1, 0.2, 0.3)
    value, *errors = literature.summarise(7.1)
    assert value == 7.1
    assert np.isnan(errors).all()


@pytest.mark.parametrize(
    ("measure", "complaint"),
    [
        ((8.1, -0.2), "measured slope is .*errors not negative"),
        ((), "measured slope is .*give a posterior"),
        ((8.1, np.nan), "not finite; drop them"),
        (tree(level=np.arange(5.0)), "no slope but level; give another posterior"),
    ],
)
def test_what_is_no_measurement_is_refused(measure, complaint):
    with pytest.raises(ValueError, match=complaint):
        literature.summarise(measure, "slope")

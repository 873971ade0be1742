import dataclasses
import math

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.cosmology import Planck18

from metalgrad import cards
from metalgrad.targets import Target, load_target

TARGETS = cards.names("targets")
FIELD = {"a2744-yd4": "A2744-YD4", "a2744-yd1": "A2744-YD4"}
FIELD |= {"bdf-3299": "BDF-3299", "cosmos24108": "COSMOS24108"}


def angular_scale(redshift):
    # another road to kpc per arcsec: the angular diameter distance
    arcsec = (1 * u.arcsec).to_value(u.rad)
    return Planck18.angular_diameter_distance(redshift).to_value(u.kpc) * arcsec


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


# --- laws of cards -----------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_target_is_possible(name):
    target = load_target(name)
    assert target.name == name
    assert target.redshift > 0
    assert 0 < target.radius < 3
    assert len(cards.read("targets", name)["reference"]) == 19
    if target.position is None:
        assert "position" in target.missing
    else:
        assert target.centre is target.position


@pytest.mark.parametrize("name", TARGETS)
def test_scale_is_that_of_planck18_behind_the_lens(name):
    target = load_target(name)
    expected = angular_scale(target.redshift) / math.sqrt(target.magnification)
    assert target.kpc_per_arcsec == pytest.approx(expected, rel=5e-4)


@pytest.mark.parametrize("name", TARGETS)
def test_sources_are_those_of_the_published_table(name):
    table = cards.table("published/venturi24.ecsv")
    for source, values in load_target(name).sources.items():
        (k,) = (
            k
            for k in range(len(table["source"]))
            if (table["target"][k], table["source"][k]) == (FIELD[name], source)
        )
        assert values["redshift"] == table["redshift"][k]
        for line in ("OII", "NeIII", "Hbeta", "OIII", "Halpha", "SII"):
            value = values.get(line, [math.nan, math.nan])
            limited = isinstance(value, dict)
            expected = [math.nan, math.nan] if limited else value
            ours = [table[line][k], table[f"{line}_err"][k]]
            np.testing.assert_array_equal(ours, expected)
            limit = value["limit"] if limited else math.nan
            np.testing.assert_array_equal(table[f"{line}_limit"][k], limit)
        for key in ("log_mass", "metallicity"):
            ours = [table[f"{key}{side}"][k] for side in ("", "_plus", "_minus")]
            np.testing.assert_array_equal(ours, values.get(key, [math.nan] * 3))


def test_every_published_source_is_on_one_card():
    sources = [
        (FIELD[name], source)
        for name in TARGETS
        for source in load_target(name).sources
    ]
    table = cards.table("published/venturi24.ecsv")
    published = list(zip(table["target"], table["source"], strict=True))
    assert sorted(sources) == sorted(published)


@pytest.mark.parametrize("name", TARGETS)
def test_gradients_are_those_of_the_published_table(name):
    target = load_target(name)
    table = cards.table("published/venturi24_gradients.ecsv")
    k = [row.lower() for row in table["target"]].index(name)
    for key in ("gradient", "gradient_re"):
        expected = [table[f"{key}{side}"][k] for side in ("", "_plus", "_minus")]
        assert target.published[key] == expected
    assert target.effective_radius == table["effective_radius"][k]


def test_positions_are_those_of_table_1():
    # RA = 15 (h + m/60 + s/3600), by hand
    position = load_target("cosmos24108").position
    assert position.ra.deg == pytest.approx(15 * (10 + 0 / 60 + 47.33 / 3600))
    assert position.dec.deg == pytest.approx(2 + 28 / 60 + 43.14 / 3600)
    position = load_target("a2744-yd4").position
    assert position.ra.deg == pytest.approx(15 * (0 + 14 / 60 + 24.90 / 3600))
    assert position.dec.deg == pytest.approx(-(30 + 22 / 60 + 56.10 / 3600))


def test_what_the_paper_does_not_say_is_missing():
    assert load_target("a2744-yd1").missing == ("position",)
    target = load_target("cosmos24108")
    assert target.masks == ()
    assert target.missing == ("position and radius of the mask on [O III]-Ea",)


def test_a_target_without_position_asks_for_it():
    target = load_target("a2744-yd1")
    with pytest.raises(ValueError, match=r"a2744-yd1 has no position in the paper; gi"):
        _ = target.centre
    position = SkyCoord(3.6, -30.38, unit="deg")
    assert dataclasses.replace(target, position=position).centre is position


# --- targets of one's own ----------------------------------------------------------


def test_at_takes_the_scale_of_planck18():
    target = Target.at(redshift=3.0, radius=0.5)
    assert target.kpc_per_arcsec == pytest.approx(angular_scale(3.0), rel=1e-9)
    lensed = Target.at(redshift=3.0, radius=0.5, magnification=4.0)
    assert lensed.kpc_per_arcsec == pytest.approx(angular_scale(3.0) / 2, rel=1e-9)
    assert Target.at(redshift=3.0, radius=1.0, kpc_per_arcsec=7.7).kpc_per_arcsec == 7.7


def test_a_card_of_the_user(tmp_path):
    path = write(
        tmp_path,
        """
        redshift = 2
        radius = 1
        position = [150.1, 2.2]
        axis_ratio = 0.6
        position_angle = 35
        [[masks]]
        position = ["10:00:24", "+02:12:00"]
        radius = 0.3
        """,
    )
    target = load_target(path)
    assert target.name == "mine"
    assert target.kpc_per_arcsec == pytest.approx(angular_scale(2.0), rel=1e-9)
    assert (target.axis_ratio, target.position_angle) == (0.6, 35.0)
    ((centre, radius),) = target.masks
    # 10:00:24 is 150.1 degrees, +02:12:00 is 2.2
    assert centre.separation(target.position).arcsec == pytest.approx(0, abs=1e-6)
    assert radius == 0.3
    assert target.missing == ()
    assert target.effective_radius is None


def test_unknown_and_missing_keys_are_named(tmp_path):
    path = write(tmp_path, "redshift = 2\nradius = 1\naxisratio = 0.5\n")
    with pytest.raises(ValueError, match=r"mine\.toml.*'axisratio'.*'axis_ratio'"):
        load_target(path)
    with pytest.raises(ValueError, match=r"mine\.toml lacks the key 'radius'"):
        load_target(write(tmp_path, "redshift = 2\n"))
    text = "redshift = 2\nradius = 1\n[[masks]]\nradii = 1\n"
    with pytest.raises(ValueError, match=r"\[\[masks\]\] 1.*'radii'.*'radius'"):
        load_target(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("redshift = -1\nradius = 1\n", "redshift of target mine is -1.0"),
        ("redshift = 2\nradius = 0\n", "radius of target mine is 0.0"),
        ("redshift = 2\nradius = nan\n", "radius of target mine is nan"),
        ("redshift = '2'\nradius = 1\n", "redshift of target card .*'2'; give a num"),
        ("redshift = 2\nradius = true\n", "radius of target card .*True; give a num"),
        ("redshift = 2\nradius = 1\naxis_ratio = 1.5\n", "at most 1"),
        ("redshift = 2\nradius = 1\nmagnification = 0\n", "magnification of targ"),
        ("redshift = 2\nradius = 1\nkpc_per_arcsec = -8\n", "kpc_per_arcsec of targ"),
        ("redshift = 2\nradius = 1\nposition = ['a', 'b']\n", "sexagesimal"),
        ("redshift = 2\nradius = 1\nposition = [150.0]\n", "sexagesimal"),
        ("redshift = 2\nradius = 1\nposition = [150.0, 91.0]\n", "sexagesimal"),
        (
            "redshift = 2\nradius = 1\n[[masks]]\nposition = [1, 2]\nradius = -1\n",
            "radius of a mask of target mine is -1.0; give a finite number above 0",
        ),
    ],
)
def test_impossible_values_are_named(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        load_target(write(tmp_path, text))


def test_many_positions_are_refused():
    positions = SkyCoord([1, 2], [3, 4], unit="deg")
    with pytest.raises(ValueError, match=r"position of target .* shape \(2,\).*one"):
        Target.at(redshift=2.0, radius=1.0, position=positions)


def test_numbers_may_have_their_units():
    given = Target.at(
        redshift=6.3,
        radius=0.01 * u.arcmin,
        position="10 00 47.33 +02 28 43.14",
        kpc_per_arcsec=5600 * u.pc / u.arcsec,
    )
    assert given.radius == pytest.approx(0.6)
    assert given.kpc_per_arcsec == pytest.approx(5.6)
    assert given.position.ra.deg == pytest.approx(15 * (10 + 47.33 / 3600))
    more = {"position_angle": 0.5 * u.rad, "effective_radius": 800 * u.pc}
    turned = dataclasses.replace(given, **more)
    assert turned.position_angle == pytest.approx(np.degrees(0.5))
    assert turned.effective_radius == pytest.approx(0.8)
    with pytest.raises(ValueError, match=r"radius of target .* is 3.0 kpc where"):
        dataclasses.replace(given, radius=3 * u.kpc)
    with pytest.raises(ValueError, match=r"position of .* 'here' cannot be read"):
        dataclasses.replace(given, position="here")


def test_a_target_without_a_card_may_be_inclined():
    given = Target.at(redshift=6.3, radius=0.6, axis_ratio=0.5, effective_radius=0.8)
    assert (given.axis_ratio, given.effective_radius) == (0.5, 0.8)
    with pytest.raises(TypeError, match="axis_ration"):
        Target.at(redshift=6.3, radius=0.6, axis_ration=0.5)

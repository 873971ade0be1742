"""Associations: what goes with what, and whether the pipeline can read it."""

import pytest
from astropy.io import fits

from metalgrad import associations


def expose(folder, number, **cards):
    """Write a count-rate image of nothing, with a header."""
    header = fits.Header(
        {"EXP_TYPE": "NRS_IFU", "DETECTOR": "NRS1", "FILTER": "CLEAR",
         "GRATING": "PRISM", "PROGRAM": "01893"} | cards
    )  # fmt: skip
    path = folder / f"jw01893001001_02101_{number:05d}_nrs1_rate.fits"
    fits.PrimaryHDU(header=header).writeto(path)
    return path


@pytest.fixture
def exposures(tmp_path):
    """Two of a galaxy, two of the sky, a leak, another grating's sky, an image."""
    paths = [expose(tmp_path, k) for k in (1, 2)]
    paths += [expose(tmp_path, k, BKGDTARG=True) for k in (3, 4)]
    paths += [expose(tmp_path, 5, IS_IMPRT=True)]
    paths += [expose(tmp_path, 6, BKGDTARG=True, FILTER="F100LP")]
    paths += [expose(tmp_path, 7, EXP_TYPE="NRS_TACQ")]
    return associations.read_exposures(paths)


def kinds(association):
    members = association["products"][0]["members"]
    return [(m["expname"].rpartition("_0000")[2][0], m["exptype"]) for m in members]


def test_headers_tell_what_exposures_are(exposures):
    assert [one.kind for one in exposures] == [
        "science", "science", "background", "background", "imprint", "background"
    ]  # fmt: skip


def test_each_exposure_of_the_galaxy_gets_the_sky_of_its_setting(exposures):
    lists = associations.spec2(exposures)
    assert [name[-10:] for name in lists] == ["00001_nrs1", "00002_nrs1"]
    first, second = lists.values()
    sky = [("3", "background"), ("4", "background"), ("5", "imprint")]
    assert kinds(first) == [("1", "science"), *sky]
    assert kinds(second) == [("2", "science"), *sky]
    bare = associations.spec2(exposures, background=False)
    assert [kinds(one)[1:] for one in bare.values()] == [[("5", "imprint")]] * 2


def test_the_cube_is_of_the_galaxy_alone(exposures):
    assert kinds(associations.spec3(exposures, "x")) == [
        ("1", "science"),
        ("2", "science"),
    ]


def test_the_pipeline_reads_them(exposures, tmp_path):
    pytest.importorskip("jwst")
    from jwst.associations import load_asn
    from jwst.associations.lib.rules_level2_base import DMSLevel2bBase
    from jwst.associations.lib.rules_level3_base import DMS_Level3_Base

    for rule, made in (
        (DMSLevel2bBase, next(iter(associations.spec2(exposures).values()))),
        (DMS_Level3_Base, associations.spec3(exposures, "cosmos24108")),
    ):
        path = associations.write(made, tmp_path / "one_asn.json")
        with path.open(encoding="utf-8") as file:
            read = load_asn(file)
        assert rule.validate(read)
        assert read["asn_rule"] in (rule.__name__, "DMSLevel2bBase")
        assert dict(read) == made


def test_a_galaxy_without_its_sky_is_named(tmp_path):
    alone = [expose(tmp_path, 1), expose(tmp_path, 2, BKGDTARG=True, DETECTOR="NRS2")]
    exposures = associations.read_exposures(alone)
    with pytest.raises(ValueError, match=r"00001_nrs1_rate.* no background .*NRS1, CL"):
        associations.spec2(exposures)
    with pytest.raises(
        ValueError, match=r"no exposure is of the galaxy itself: .*00002"
    ):
        associations.spec3(exposures[1:], "x")


def test_what_is_no_exposure_is_named(tmp_path):
    path = tmp_path / "a_rate.fits"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a_rate\.fits is no exposure"):
        associations.read_exposures([path])
    fits.PrimaryHDU().writeto(path, overwrite=True)
    with pytest.raises(ValueError, match=r"no exposure of the jwst .*EXP_TYPE"):
        associations.read_exposures([path])
    image = expose(tmp_path, 7, EXP_TYPE="NRS_TACQ")
    with pytest.raises(ValueError, match=r"none of 1 exposures is of NIRSpec's IFU"):
        associations.read_exposures([image])

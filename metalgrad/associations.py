"""Which exposures belong together: the lists that the jwst pipeline works from.

Venturi et al. (2024, Sect. 2.1) subtract the dedicated background exposures from each
exposure of a galaxy, on the detector, and combine all of those into one cube.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from astropy.io import fits

from metalgrad.files import NewFile

MODE = "NRS_IFU"  # EXP_TYPE; the rest are images that point the telescope
RULES = {"spec2": "DMSLevel2bBase", "spec3": "DMS_Level3_Base"}  # of the pipeline


@dataclass(frozen=True)
class Exposure:
    """What a header says of an exposure.

    Attributes
    ----------
    path : Path
    kind : str
        "science", "background" or "imprint", as the pipeline calls them.
    setting : tuple of str
        Detector, filter and disperser: exposures share them to be subtracted.
    program : str
    """

    path: Path
    kind: str
    setting: tuple[str, str, str]
    program: str = ""

    @property
    def stem(self) -> str:
        """The name without what tells the stage of reduction."""
        return self.path.name.rpartition("_")[0]


def read_exposures(paths, *, disperser: str = "PRISM") -> list[Exposure]:
    """Read from headers what exposures are of; leave out all but the IFU's.

    Parameters
    ----------
    paths : iterable of path
        FITS files of the pipeline, of any stage.
    disperser : str

    Returns
    -------
    list of Exposure

    Raises
    ------
    ValueError
        If a file has no primary header of JWST, or none is of the IFU.
    """
    paths = [Path(path) for path in paths]
    found = [_read(path) for path in paths]
    found = [one for one in found if one is not None and one.setting[2] == disperser]
    if not found:
        raise ValueError(
            f"none of {len(paths)} exposures is of NIRSpec's IFU with {disperser}: "
            f"{', '.join(path.name for path in paths) or 'there is no file'}; check "
            "the programme and the target"
        )
    return found


def spec2(
    exposures, *, background: bool = True
) -> dict[str, dict[str, str | list[dict]]]:
    """List what the second stage needs for each exposure of the galaxy.

    Parameters
    ----------
    exposures : list of Exposure
        Count-rate images of galaxy and background.
    background : bool
        Subtract the background; False to keep it.

    Returns
    -------
    dict
        An association for each exposure of the galaxy, by its name.

    Raises
    ------
    ValueError
        If there is no exposure of the galaxy, or one without a background.
    """
    return {
        one.stem: _association(one, one.stem, _members(one, exposures, background))
        for one in _science(exposures)
    }


def spec3(exposures, product: str) -> dict[str, str | list[dict]]:
    """List what the third stage combines: all calibrated exposures of the galaxy.

    Parameters
    ----------
    exposures : list of Exposure
        Calibrated.
    product : str
        What the cube's name begins with.

    Returns
    -------
    dict
        The association.

    Raises
    ------
    ValueError
        If there is no exposure of the galaxy.
    """
    science = _science(exposures)
    members = [_member(one.path, "science") for one in science]
    return _association(science[0], product, members, stage="spec3")


def write(association, path: Path) -> Path:
    """Write an association as the pipeline reads it, in the folder of its members."""
    with NewFile(path) as fresh:
        fresh.write_text(json.dumps(association, indent=1), encoding="utf-8")
    return path


def _read(path):
    try:
        header = fits.getheader(path)
        mode = header["EXP_TYPE"]
    except (KeyError, OSError) as error:
        raise ValueError(
            f"{path} is no exposure of the jwst pipeline ({error}); remove it"
        ) from error
    if mode != MODE:
        return None
    kind = "background" if header.get("BKGDTARG", False) else "science"
    kind = "imprint" if header.get("IS_IMPRT", False) else kind
    setting = tuple(str(header.get(k, "")) for k in ("DETECTOR", "FILTER", "GRATING"))
    return Exposure(path, kind, setting, str(header.get("PROGRAM", "")))


def _science(exposures):
    science = [one for one in exposures if one.kind == "science"]
    if not science:
        kinds = ", ".join(f"{one.path.name} ({one.kind})" for one in exposures)
        raise ValueError(
            f"no exposure is of the galaxy itself: {kinds or 'there is none'}; check "
            "the position of the target"
        )
    return science


def _members(science, exposures, background):
    """List the exposure, and all that is subtracted from it."""
    alike = [one for one in exposures if one.setting == science.setting]
    taken = {"imprint"} | ({"background"} if background else set())
    others = [_member(one.path, one.kind) for one in alike if one.kind in taken]
    if background and "background" not in {one["exptype"] for one in others}:
        raise ValueError(
            f"{science.path.name} has no background exposure with "
            f"{', '.join(science.setting)}; give those, or keep the background "
            "(--no-background)"
        )
    return [_member(science.path, "science"), *others]


def _member(path, kind):
    return {"expname": path.name, "exptype": kind}


def _association(science, product, members, stage="spec2"):
    return {
        "asn_type": stage,
        "asn_rule": RULES[stage],
        "asn_id": "a3001",  # the first that users may give to their own
        "asn_pool": "none",
        "program": science.program,
        "target": product,
        "products": [{"name": product, "members": members}],
    }

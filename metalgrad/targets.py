"""Target: where a galaxy is on the sky, its redshift and its scale."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.cosmology import Planck18

from metalgrad import cards
from metalgrad.positions import read_position

__all__ = ["Target", "load_target"]

REQUIRED = ("redshift", "radius")
OPTIONAL = (
    "reference",
    "program",
    "position",
    "kpc_per_arcsec",
    "magnification",
    "axis_ratio",
    "position_angle",
    "effective_radius",
    "masks",
    "published",
)
UNITS = {
    "radius": u.arcsec,
    "kpc_per_arcsec": u.kpc / u.arcsec,
    "position_angle": u.deg,
    "effective_radius": u.kpc,
}
NUMBERS = ("redshift", "magnification", "axis_ratio", *UNITS)


@dataclass(frozen=True, eq=False)
class Target:
    """One galaxy on the sky.

    Change a copy with ``dataclasses.replace(target, position=...)``; another redshift
    asks for another ``kpc_per_arcsec``.  Numbers with a unit may be Quantities, and
    become numbers in that unit.

    Parameters
    ----------
    name : str
        Name of the target.
    position : SkyCoord, str or None
        Centre of the gradient, a text as for `read_position`; None where it is not
        known.
    redshift : float
        Redshift, above 0.
    kpc_per_arcsec : float
        Scale [kpc per arcsec], corrected for lensing.
    radius : float
        Radius of the region to fit [arcsec], along the major axis.
    axis_ratio : float
        Minor over major axis of the disc on the sky, above 0 and at most 1.
    position_angle : float
        Of the major axis [deg], from north through east.
    effective_radius : float or None
        Half-light radius [kpc].
    masks : tuple of (SkyCoord, float)
        Circles to leave out: centre and radius [arcsec].
    magnification : float
        Lensing magnification, an area; 1 without a lens.
    published : dict
        Published values, for comparison only.
    sources : dict of dict
        Published values of each source in the field, for comparison only.
    missing : tuple of str
        What the source of the card does not say and the user should.

    Raises
    ------
    ValueError
        If a number is out of its range.
    """

    name: str
    position: SkyCoord | str | None
    redshift: float
    kpc_per_arcsec: float | u.Quantity
    radius: float | u.Quantity
    axis_ratio: float = 1.0
    position_angle: float | u.Quantity = 0.0
    effective_radius: float | u.Quantity | None = None
    masks: tuple = ()
    magnification: float = 1.0
    published: dict = field(default_factory=dict)
    sources: dict = field(default_factory=dict)
    missing: tuple = ()

    def __post_init__(self):
        """Take units off, and refuse numbers that no galaxy can have."""
        for key, unit in UNITS.items():
            what = f"{key} of target {self.name}"
            object.__setattr__(self, key, _strip(getattr(self, key), unit, what))
        if isinstance(self.position, str):
            what = f"position of target {self.name}"
            object.__setattr__(self, "position", read_position(self.position, what))
        positive = ["redshift", "kpc_per_arcsec", "radius", "axis_ratio"]
        positive += ["magnification"]
        if self.effective_radius is not None:
            positive += ["effective_radius"]
        for key in positive:
            _check_positive(f"{key} of target {self.name}", getattr(self, key))
        for _, radius in self.masks:
            _check_positive(f"radius of a mask of target {self.name}", radius)
        if self.axis_ratio > 1:
            raise ValueError(
                f"axis_ratio of target {self.name} is {self.axis_ratio}; give minor "
                "over major axis, at most 1"
            )
        if self.position is not None and not self.position.isscalar:
            raise ValueError(
                f"position of target {self.name} has shape {self.position.shape}; "
                "give one SkyCoord"
            )

    @classmethod
    def at(
        cls,
        *,
        redshift: float,
        radius: float | u.Quantity,
        position: SkyCoord | str | None = None,
        kpc_per_arcsec: float | u.Quantity | None = None,
        magnification: float = 1.0,
        name: str = "target",
        **more,
    ) -> "Target":
        """Make a target that has no card.

        Parameters
        ----------
        redshift, radius, position, magnification, name
            As in `Target`.
        **more
            What else a `Target` has: ``axis_ratio``, ``position_angle``, ``masks``, ...
        kpc_per_arcsec : float, optional
            By default the scale of Planck18 at this redshift, over the square root
            of the magnification.

        Returns
        -------
        Target

        Raises
        ------
        ValueError
            If a number is out of its range.
        """
        _check_positive(f"redshift of target {name}", redshift)
        _check_positive(f"magnification of target {name}", magnification)
        if kpc_per_arcsec is None:
            kpc_per_arcsec = _planck_scale(redshift) / magnification**0.5
        return cls(
            name=name,
            position=position,
            redshift=float(redshift),
            kpc_per_arcsec=kpc_per_arcsec,
            radius=radius,
            magnification=float(magnification),
            **more,
        )

    @property
    def centre(self) -> SkyCoord:
        """The position, for whatever cannot do without.

        Raises
        ------
        ValueError
            If the target has none.
        """
        if self.position is None:
            where = " in the paper" if self.published else ""
            raise ValueError(
                f"target {self.name} has no position{where}; give it with "
                "dataclasses.replace(target, position=SkyCoord(...)) or --center"
            )
        return self.position


def load_target(name) -> Target:
    """Read a target card of ``data/targets``, or your own TOML file.

    Parameters
    ----------
    name : str or path
        Name of a shipped card, or the path of a ``.toml`` file.

    Returns
    -------
    Target
        With `Target.missing` naming what the card could not give.

    Raises
    ------
    ValueError
        If there is no such card, a key is unknown or missing, or a value is out of
        its range.
    FileNotFoundError
        If a path was given and nothing is there.
    """
    card = cards.read("targets", name)
    source = f"target card {name}"
    cards.check_keys(card, source, REQUIRED, OPTIONAL)
    number = {key: _number(card, key, source) for key in NUMBERS if key in card}
    stem = Path(name).stem
    position = _read_position(card["position"], stem) if "position" in card else None
    masks, missing = _read_masks(card.get("masks", []), stem)
    if position is None:
        missing = ("position", *missing)
    published = dict(card.get("published", {}))
    sources = published.pop("sources", {})
    return Target.at(
        name=stem,
        position=position,
        masks=masks,
        missing=missing,
        published=published,
        sources=sources,
        **number,
    )


def _strip(value, unit, what):
    """Take the unit off a number."""
    if not isinstance(value, u.Quantity):
        return value if value is None else float(value)
    try:
        return float(value.to_value(unit))
    except (TypeError, u.UnitConversionError) as error:
        raise ValueError(
            f"{what} is {value} where one number in {unit} is expected; convert it"
        ) from error


def _planck_scale(redshift):
    # proper kpc per arcsec, in the cosmology of Venturi et al. (2024)
    scale = Planck18.kpc_proper_per_arcmin(redshift)
    return float(scale.to_value(u.kpc / u.arcsec))


def _read_position(pair, name):
    # sexagesimal strings are hours and degrees, numbers are degrees
    ra_unit = u.hourangle if all(isinstance(x, str) for x in pair) else u.deg
    try:
        ra, dec = pair
        return SkyCoord(ra, dec, unit=(ra_unit, u.deg))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"position {pair} of target {name} cannot be read; give [ra, dec] as "
            "sexagesimal strings (hours and degrees) or as numbers in degrees"
        ) from error


def _read_masks(tables, name):
    """Split masks into those that can be used and words for what the others lack."""
    masks, missing = [], []
    for number, table in enumerate(tables, start=1):
        source = f"target card {name}, [[masks]] {number}"
        cards.check_keys(table, source, (), ("source", "position", "radius"))
        lacks = [key for key in ("position", "radius") if key not in table]
        if lacks:
            label = table.get("source", number)
            missing.append(f"{' and '.join(lacks)} of the mask on {label}")
        else:
            centre = _read_position(table["position"], name)
            masks.append((centre, _number(table, "radius", source)))
    return tuple(masks), tuple(missing)


def _number(card, key, source):
    value = card[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key} of {source} is {value!r}; give a number")
    return float(value)


def _check_positive(what, value):
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{what} is {value}; give a finite number above 0")

"""Strong-line calibrations: mean log ratios and their dispersion at a metallicity."""

from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metalgrad import cards

LEAD = "R3"  # the departures of other ratios follow its own
# By ratio, another that is log R3 less it: its dispersion tells how they hang together.
DIFFERENCES = {"R2": "O3O2", "S2": "O3S2", "N2": "O3N2"}
CLOSEST = 0.95  # correlation that dispersions of different samples may imply (ours)


@dataclass(frozen=True, eq=False)
class Relation:
    """One ratio as a polynomial of metallicity.

    ``log10 R = sum_n coefficients[n] (Z - zero_point)^n`` with Z = 12+log(O/H).

    Attributes
    ----------
    coefficients : tuple of float
        Ascending powers.
    zero_point : float
    valid : tuple of float
        Range of 12+log(O/H); beyond it the relation goes on as a straight line.
    dispersion : float, tuple of (float, float), or None
        Intrinsic dispersion between galaxies [dex]: the same everywhere, or pairs of
        metallicity and dispersion, linear in between and constant beyond; None where
        none was published.
    direction : str
        ``"ratio"`` or ``"abundance"``: the axis along which it was measured.
    """

    coefficients: tuple[float, ...]
    zero_point: float
    valid: tuple[float, float]
    dispersion: float | tuple[tuple[float, float], ...] | None
    direction: str

    def __post_init__(self):
        """Refuse a direction that is not known."""
        if self.direction not in ("ratio", "abundance"):
            raise ValueError(
                f"direction {self.direction!r} of a dispersion is not known; "
                "use 'ratio' or 'abundance'"
            )
        if self.dispersion is None:
            return
        width = metallicity = np.array(self.dispersion, float)
        if isinstance(self.dispersion, tuple):
            metallicity, width = width.reshape(-1, 2).T
        if np.any(np.diff(np.atleast_1d(metallicity)) <= 0) or not np.all(width > 0):
            raise ValueError(
                f"dispersion {self.dispersion} is none; give a number above 0 [dex], "
                "or pairs of increasing metallicity and of dispersion above 0, "
                "[[7.2, 0.3], [8.2, 0.1]]"
            )

    def log_ratio(self, metallicity):
        """Log10 of the ratio; a straight line beyond ``valid``."""
        inside = jnp.clip(metallicity, *self.valid)
        x = inside - self.zero_point
        value = jnp.polyval(jnp.array(self.coefficients[::-1]), x)
        return value + self.slope(metallicity) * (metallicity - inside)

    def slope(self, metallicity):
        """Return d(log ratio)/dZ, constant beyond ``valid``."""
        x = jnp.clip(metallicity, *self.valid) - self.zero_point
        powers = np.arange(1, len(self.coefficients))
        descending = (powers * np.array(self.coefficients[1:]))[::-1]
        return jnp.polyval(jnp.array(descending), x)

    def ratio_dispersion(self, metallicity):
        """Dispersion along the log ratio [dex] at a metallicity."""
        width = self.dispersion
        if isinstance(width, tuple):
            width = jnp.interp(metallicity, *jnp.array(width).T)
        if self.direction == "ratio":
            return width * jnp.ones_like(metallicity)
        return width * jnp.abs(self.slope(metallicity))


@dataclass(frozen=True, eq=False)
class Calibration:
    """Strong-line relations of one paper.

    Attributes
    ----------
    name : str
    reference : str
        ADS bibcode.
    relations : dict of str to Relation
    tied : bool
        Whether a galaxy's departures from the relations follow that from R3, as far as
        the calibration tells (`follow`), or each ratio departs for itself.
    """

    name: str
    reference: str
    relations: dict[str, Relation]
    tied: bool = False

    @property
    def ratios(self) -> tuple[str, ...]:
        """Names of the ratios, in the order of the card."""
        return tuple(self.relations)

    def __getitem__(self, ratio: str) -> Relation:
        """Return the relation of one ratio.

        Raises
        ------
        ValueError
            If the calibration has none.
        """
        if ratio not in self.relations:
            raise ValueError(
                f"calibration {self.name} has no ratio {ratio}; "
                f"it has {', '.join(self.relations)}"
            )
        return self.relations[ratio]

    def log_ratio(self, ratio: str, metallicity):
        """Mean log10 ratio at ``metallicity`` (any shape)."""
        return self[ratio].log_ratio(jnp.asarray(metallicity, float))

    def dispersion(self, ratio: str, metallicity):
        """Intrinsic dispersion of the log ratio [dex] at ``metallicity`` (any shape).

        Raises
        ------
        ValueError
            If the source published none.
        """
        if self[ratio].dispersion is None:
            raise ValueError(
                f"calibration {self.name} has no published dispersion of {ratio}; "
                f"give one with Calibration.with_dispersion({ratio}=...)"
            )
        return self[ratio].ratio_dispersion(jnp.asarray(metallicity, float))

    def log_ratios(
        self, ratios: tuple[str, ...], metallicity: Float[Array, " spaxel"]
    ) -> Float[Array, "spaxel ratio"]:
        """Mean log10 ratios, stacked."""
        return jnp.stack([self.log_ratio(r, metallicity) for r in ratios], axis=-1)

    def predict(
        self, ratios: tuple[str, ...], metallicity: Float[Array, " spaxel"]
    ) -> tuple[Float[Array, "spaxel ratio"], Float[Array, "spaxel ratio"]]:
        """Mean log10 ratios and their dispersions [dex], stacked."""
        return (
            self.log_ratios(ratios, metallicity),
            self.dispersions(ratios, metallicity),
        )

    def dispersions(
        self, ratios: tuple[str, ...], metallicity: Float[Array, " spaxel"]
    ) -> Float[Array, "spaxel ratio"]:
        """Dispersions of the log ratios [dex], stacked."""
        return jnp.stack([self.dispersion(r, metallicity) for r in ratios], axis=-1)

    def follow(
        self, ratios: tuple[str, ...], metallicity: Float[Array, " spaxel"]
    ) -> Float[Array, "spaxel ratio"]:
        """Correlation of the departure of each ratio with that of R3.

        log O3O2 is log R3 less log R2, so that its variance is the sum of theirs less
        twice their covariance; O3S2 and O3N2 tell of S2 and N2 likewise.  0 where there
        is no such ratio, for R3 itself, and for all if departures are not `tied`.
        """
        if not self._are_tied(ratios):
            return jnp.zeros((*jnp.shape(metallicity), len(ratios)))
        return jnp.stack([self._follow(r, metallicity) for r in ratios], axis=-1)

    def _follow(self, name, metallicity):
        other = DIFFERENCES.get(name)
        if other not in self.relations:
            return jnp.zeros_like(metallicity, float)
        lead, own, apart = (
            self.dispersion(n, metallicity) for n in (LEAD, name, other)
        )
        share = (lead**2 + own**2 - apart**2) / (2 * lead * own)
        return jnp.clip(share, -CLOSEST, CLOSEST)

    def _are_tied(self, ratios):
        return self.tied and LEAD in ratios

    def tie(self, ratios: tuple[str, ...], metallicity, departure):
        """Make independent departures such as follow that of R3.

        Given that they are independent, and each has the variance that it had.

        Parameters
        ----------
        ratios : tuple of str
        metallicity : array, (spaxel,)
        departure : array, (spaxel, ratio) or (ratio,)
            In units of the dispersions.
        """
        if not self._are_tied(ratios):
            return departure
        along = self.follow(ratios, metallicity)
        lead = departure[..., ratios.index(LEAD), None]
        return along * lead + jnp.sqrt(1 - along**2) * departure

    def untie(self, ratios: tuple[str, ...], metallicity, departure):
        """Undo `tie`, (spaxel, ratio)."""
        if not self._are_tied(ratios):
            return departure
        along = self.follow(ratios, metallicity)
        lead = departure[..., ratios.index(LEAD), None]
        return (departure - along * lead) / jnp.sqrt(1 - along**2)

    def valid(self, *ratios: str) -> tuple[float, float]:
        """Range of 12+log(O/H) where every one of ``ratios`` (default all) holds."""
        ranges = np.array([self[r].valid for r in ratios or self.relations])
        return float(ranges[:, 0].max()), float(ranges[:, 1].min())

    def with_dispersion(self, **dispersions: float) -> "Calibration":
        """Return a copy with some dispersions [dex, along the log ratio] replaced."""
        changed = {
            name: Relation(
                self[name].coefficients,
                self[name].zero_point,
                self[name].valid,
                value,
                "ratio",
            )
            for name, value in dispersions.items()
        }
        return replace(self, relations=self.relations | changed)


HEADER = ("reference", "zero_point", "valid", "status")
OPTIONAL = ("dispersion", "direction", "valid", "zero_point", "reference", "status")


def load_calibration(name) -> Calibration:
    """Read a calibration card of ``models/calibrations`` or a TOML file of your own.

    Parameters
    ----------
    name : str or path

    Raises
    ------
    ValueError
        If there is no such card, or a key of it is missing or unknown.
    """
    card = cards.read("calibrations", name)
    tables = {key: card.pop(key) for key in list(card) if isinstance(card[key], dict)}
    cards.check_keys(card, name, required=HEADER, optional=("summary", "tied"))
    relations = {}
    for ratio, table in tables.items():
        source = f"{name}, [{ratio}]"
        cards.check_keys(
            table, source, required=("coefficients",), optional=(*OPTIONAL, "check")
        )
        relations[ratio] = Relation(
            tuple(table["coefficients"]),
            table.get("zero_point", card["zero_point"]),
            tuple(table.get("valid", card["valid"])),
            _width(table.get("dispersion")),
            table.get("direction", "ratio"),
        )
    if not isinstance(tied := card.get("tied", False), bool):
        raise ValueError(f"tied of {name} is {tied!r}; give true or false")
    if tied and not _tells_ties(relations):
        pairs = ", or ".join(" and ".join(pair) for pair in DIFFERENCES.items())
        raise ValueError(
            f"{name} is tied, but has not what tells of ties: {LEAD} with {pairs}; "
            "give their tables, or leave tied out"
        )
    return Calibration(Path(name).stem, card["reference"], relations, tied)


def _tells_ties(relations):
    return LEAD in relations and any(
        {*pair} <= {*relations} for pair in DIFFERENCES.items()
    )


def _width(dispersion):
    """Make pairs of a list of lists."""
    if isinstance(dispersion, list):
        return tuple(tuple(pair) for pair in dispersion)
    return dispersion

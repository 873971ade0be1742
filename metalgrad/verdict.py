"""The verdict on a fit: a table of criteria, and whether the chains converged."""

import textwrap
from dataclasses import dataclass

import numpy as np
from astropy.table import Table

from metalgrad.checks import examine
from metalgrad.criteria import sentences, unmet

COLUMNS = {
    "criterion": "what was looked at",
    "value": "what was found; NaN if it cannot be had, which does not pass",
    "sense": "how the value should lie to the threshold",
    "threshold": "bound within which all is well",
    "limit": "bound beyond which the fit has not converged; NaN if not at stake",
    "where": "parameter, spaxel or chain of the value",
    "passed": "whether the value is within the threshold",
    "fails": "whether the fit has not converged because of it",
}
WIDTH = 79  # of a terminal


@dataclass(frozen=True, eq=False)
class Verdict:
    """What `judge` finds; as text, a table that fits a terminal.

    Parameters
    ----------
    table : astropy.table.Table
        One row for each criterion: ``criterion``, ``value``, ``sense``, ``threshold``,
        ``limit``, ``where``, ``passed`` and ``fails``.
    converged : bool
    reasons : list of str
        Why not, if not.
    warnings : list of str
        As `metalgrad.checks.diagnose` says.
    """

    table: Table
    converged: bool
    reasons: list[str]
    warnings: list[str]

    def __str__(self) -> str:
        """Put the verdict and its table into lines of at most 79 characters."""
        answer = "yes" if self.converged else "NO"
        if not self.table["passed"].all():
            answer += " (! misses its threshold" + (
                ")" if self.converged else "; !! is why not)"
            )
        return "\n".join(
            [f"Converged: {answer}", *(_line(row).rstrip() for row in self.table)]
        )

    @property
    def meta(self) -> dict:
        """Return the verdict in types that ECSV and YAML keep; NaN as None."""
        rows = [{name: _plain(row[name]) for name in COLUMNS} for row in self.table]
        return {"converged": self.converged, "reasons": self.reasons, "verdict": rows}


def judge(posterior) -> Verdict:
    """Judge a fit: by each criterion, and whether it may be used at all.

    A value within its threshold passes.  ``converged`` is lost only beyond the wider
    limit, and only by what tells of chains and branches:

    - ``non-finite``: variables of the posterior with draws that are not finite
    - ``R-hat`` of the worst of the galaxy's parameters; one chain cannot have it
    - ``branches``: Ashman's D between two groups of chains, in the level; or, where
      the fit has weighed two branches, ``branch weight``, the error of that
    - ``divergences`` and ``tree depth``: share of draws that diverged, or took the
      longest path
    - ``E-BFMI`` of the worst chain
    - ``bulk ESS`` and ``tail ESS`` of the worst of the galaxy's parameters
    - ``map ESS`` of the worst spaxel's metallicity

    The rest tells of data and priors, and has no limit:

    - ``map``: share of spaxels whose R-hat or ESS misses its threshold
    - ``validity`` and ``central validity``: share of the draws of the metallicity
      outside the calibration's range
    - ``noise``: factor of the worst complex's errors
    - ``Pareto k`` of the worst spaxel, in leave-one-out
    - ``other branch``: weight of all solutions but the heaviest
    - ``prior-dominated``: posterior over prior standard deviation

    What the tree does not hold has no row.  Where there are branches chains are judged
    within each.

    Parameters
    ----------
    posterior : xarray.DataTree
        As `metalgrad.fit` returns it.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        If the tree has no group ``posterior``.
    """
    criteria = examine(posterior)
    columns = {
        "criterion": [one.name for one in criteria],
        "value": [float(one.value) for one in criteria],
        "sense": [">=" if one.at_least else "<=" for one in criteria],
        "threshold": [float(one.threshold) for one in criteria],
        "limit": [float(one.limit) for one in criteria],
        "where": [one.where for one in criteria],
        "passed": [one.passed for one in criteria],
        "fails": [one.fails for one in criteria],
    }
    table = Table(columns, descriptions=COLUMNS)
    reasons = unmet(criteria)
    return Verdict(table, not reasons, reasons, sentences(criteria))


def _line(row) -> str:
    mark = "!!" if row["fails"] else "" if row["passed"] else "!"
    wanted = f"{row['sense']} {row['threshold']:.4g}"
    line = f"{mark:<3}{row['criterion']:<17}{row['value']:>9.4g} {wanted:<9} "
    return line + textwrap.shorten(row["where"], WIDTH - len(line), placeholder=" ...")


def _plain(value):
    """Return a number or text as Python's own; None for NaN."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if value != value else value

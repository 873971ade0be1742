"""What the sites of a model are to it, as its trace tells."""

from math import prod

import jax
import numpy as np
from scipy.stats import norm


def find_special(unit: dict, seen: dict, *, coupled: bool) -> dict:
    """Find the departures that are placed before all others.

    Parameters
    ----------
    unit : dict of str to tuple
        Shape of each site of departures.
    seen : dict
        The model's trace.
    coupled : bool
        Whether all spaxels are one unit.

    Returns
    -------
    dict
        Where all spaxels are one unit ``ahead``, the sites that say so.  Else, of a
        spaxel, ``leading``, the latent that has an amplitude but is itself what others
        are about, and ``bent``, that of whose sum the softplus is seen; or None.
    """
    if coupled:
        return {"ahead": tuple(name for name in unit if f"{name}_ahead" in seen)}
    names = np.repeat(list(unit), [prod(shape) for shape in unit.values()])
    leads = [f"{n}_amplitude" in seen and f"{n}_mean" not in seen for n in names]
    bent = [f"{n}_bent" in seen for n in names]
    return {"leading": _only(leads), "bent": _only(bent)}


def _only(told):
    return int(np.flatnonzero(told)[0]) if sum(told) == 1 else None


def is_derived(site) -> bool:
    """Whether a site is one number, or one for each ratio, and follows from others."""
    frames = {frame.name for frame in site.get("cond_indep_stack", ())}
    few = np.shape(site["value"]) == () or frames == {"ratio"}
    return site["type"] == "deterministic" and few


def check_standard_normal(name: str, distribution, shape: tuple) -> None:
    """Refuse a site of departures that is none.

    Raises
    ------
    ValueError
        If it is not standard normal.
    """
    probe = np.linspace(0.1, 2.0, prod(shape)).reshape(shape)
    try:
        density = float(np.sum(distribution.log_prob(probe)))
    except jax.errors.UnexpectedTracerError:  # it depends on other sites
        density = np.nan
    if not np.isclose(density, norm.logpdf(probe).sum()):
        raise ValueError(
            f"site {name} is drawn in place after place but is not standard normal; "
            "draw a standard normal there and transform it"
        )

"""Priors, and parts of a model that have them, as model cards name them."""

from dataclasses import MISSING, dataclass
from numbers import Real

import numpyro
import numpyro.distributions as dist
from numpyro.distributions import Distribution

from metalgrad import cards

DECENTERED = "_decentered"  # ends the name of a normal that is drawn standardised


@dataclass(frozen=True, eq=False)
class Free:
    """A ratio that no calibration predicts: one mean for the galaxy, and scatter.

    Attributes
    ----------
    mean : Distribution
        Prior of the galaxy's log10 ratio.
    scatter : float
        Standard deviation between spaxels [dex]; 0 for none.
    """

    mean: Distribution
    scatter: float = 0.0


def parse_prior(name: str, card) -> Distribution:
    """Read a prior off a card: ``{ Normal = [8.0, 0.5] }``, or a number to fix it at.

    Parameters
    ----------
    name : str
        What the prior is of, for the error message.
    card : dict or float
        The name of a NumPyro distribution and its arguments; or a number, which gives
        a ``Delta``.

    Raises
    ------
    ValueError
        If NumPyro has no such distribution or refuses its arguments.
    """
    if isinstance(card, Real) and not isinstance(card, bool):
        return dist.Delta(float(card))
    try:
        ((kind, arguments),) = card.items()
        return getattr(dist, kind)(*arguments, validate_args=True)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"prior of {name} is {card!r}; give the name of a NumPyro distribution and "
            "its arguments, as { Normal = [8.0, 0.5] }, or a number to fix it at"
        ) from error


def draw(name: str, prior: Distribution):
    """Draw one of the galaxy's parameters, or take the number that it is fixed at.

    A fixed one is recorded, but is no latent: its site is deterministic, and what comes
    back is a Python float, on which a model may decide what to draw at all.
    """
    if isinstance(prior, dist.Delta):
        return numpyro.deterministic(name, float(prior.v))
    return numpyro.sample(name, prior)


def decenter(name: str, law: dist.Normal, told):
    """Draw from ``law``, standardised the more the less data tell.

    A normal that is told well is best drawn as it stands, and else as a departure from
    its mean in units of its width, lest it shut in what these hang on (Papaspiliopoulos
    et al. 2007, Statist. Sci. 22, 59).  Between the two, as NumPyro's
    ``LocScaleReparam`` has it, the latent ``NAME_decentered`` is drawn.

    Parameters
    ----------
    name : str
    law : Normal
    told : array, of the shape of ``law``
        Precision of the data, over about that of ``law``.

    Returns
    -------
    array, of the shape of ``law``
    """
    centered = told / (1 + told)
    own = dist.Normal(centered * law.loc, law.scale**centered)
    infer = {"law": law}  # the value's own density is found by it
    drawn = numpyro.sample(f"{name}{DECENTERED}", own, infer=infer)
    departure = law.scale ** (1 - centered) * (drawn - centered * law.loc)
    return numpyro.deterministic(name, law.loc + departure)


def load_kind(source: str, section: str, card, kinds: dict):
    """Read a part of a model card: its kind, and priors of its parameters.

    Parameters
    ----------
    source : str
        The model's name, for the error message.
    section : str
        What the part is, likewise.
    card : dict
        ``kind``, priors as `parse_prior` takes them, and plain numbers for what is
        none.
    kinds : dict of str to type
        The kinds that there are.

    Raises
    ------
    ValueError
        If there is no such kind or it has no such parameter.
    """
    given = dict(card)
    kind = given.pop("kind", None)
    if kind not in kinds:
        raise ValueError(
            f"model {source}: {section} kind {kind!r} is not known; "
            f"use one of {', '.join(kinds)}"
        )
    known = kinds[kind].__dataclass_fields__
    needed = [
        name
        for name, field in known.items()
        if field.default is MISSING and field.default_factory is MISSING
    ]
    cards.check_keys(given, f"{source}, [{section}]", required=needed, optional=known)
    read = {
        key: parse_prior if known[key].type is Distribution else parse_numbers
        for key in given
    }
    return kinds[kind](**{key: read[key](key, given[key]) for key in given})


def parse_numbers(name: str, card):
    """Read what is no prior off a card: a number, a list of them, or a table of lists.

    Raises
    ------
    ValueError
        If anything else is in it.
    """
    if isinstance(card, dict):
        return {key: parse_numbers(f"{name}.{key}", part) for key, part in card.items()}
    if isinstance(card, list):
        return tuple(parse_numbers(name, entry) for entry in card)
    if isinstance(card, Real) and not isinstance(card, bool):
        return float(card)
    raise ValueError(f"{name} has {card!r} where a number is expected; give one")

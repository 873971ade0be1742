"""Priors, and parts of a model that have them, as model cards name them."""

import numpyro.distributions as dist
from numpyro.distributions import Distribution

from metalgrad import cards


def parse_prior(name: str, card) -> Distribution:
    """Read a prior off a card: ``{ Normal = [8.0, 0.5] }``.

    Parameters
    ----------
    name : str
        What the prior is of, for the error message.
    card : dict
        The name of a NumPyro distribution and its arguments.

    Raises
    ------
    ValueError
        If NumPyro has no such distribution or refuses its arguments.
    """
    try:
        ((kind, arguments),) = card.items()
        return getattr(dist, kind)(*arguments, validate_args=True)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"prior of {name} is {card!r}; give the name of a NumPyro distribution and "
            "its arguments, as { Normal = [8.0, 0.5] }"
        ) from error


def load_kind(source: str, section: str, card, kinds: dict):
    """Read a part of a model card: its kind, and priors of its parameters.

    Parameters
    ----------
    source : str
        The model's name, for the error message.
    section : str
        What the part is, likewise.
    card : dict
        ``kind``, and priors as `parse_prior` takes them.
    kinds : dict of str to type
        The kinds that there are.

    Raises
    ------
    ValueError
        If there is no such kind or it has no such parameter.
    """
    priors = dict(card)
    kind = priors.pop("kind", None)
    if kind not in kinds:
        raise ValueError(
            f"model {source}: {section} kind {kind!r} is not known; "
            f"use one of {', '.join(kinds)}"
        )
    known = kinds[kind].__dataclass_fields__
    cards.check_keys(priors, f"{source}, [{section}]", required=(), optional=known)
    return kinds[kind](**{key: parse_prior(key, p) for key, p in priors.items()})

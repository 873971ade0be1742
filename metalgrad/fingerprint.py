"""What a fit depends on, in a few words that are the same in every process."""

import hashlib
import inspect
import re
from functools import partial, singledispatch
from importlib import metadata
from types import CodeType, FunctionType, MethodType
from weakref import ref

import jax
import numpy as np

PACKAGES = ("metalgrad", "jax", "jaxlib", "numpyro")
DIGITS = 33  # bits of an array's largest number that count: ten digits
PLAIN = (str, bytes, int, float, type(None))


def fingerprint(**parts) -> dict[str, str]:
    """Describe the parts of a fit, the packages and the device that it runs on.

    Of a function counts its own code, not that of what it calls; of an object its
    class's name, and its attributes; of an array ten digits, lest what was prepared on
    another machine should differ by its rounding.

    Returns
    -------
    dict of str to str
        Numbers as they are, anything else as the beginning of its SHA-256.
    """
    told = {name: _tell(part) for name, part in parts.items()}
    for name in PACKAGES:
        found = metadata.distributions(name=name)
        told[name] = next((package.version for package in found), "not installed")
    return told | {"device": jax.devices()[0].device_kind}


def _tell(part):
    if isinstance(part, PLAIN):
        return str(part)
    digest = hashlib.sha256()
    _feed(digest, part)
    return digest.hexdigest()[:16]


def _feed(digest, thing):
    """Take in a thing with all that is in it."""
    kind = type(thing)
    digest.update(f"{kind.__module__}.{kind.__qualname__}:".encode())
    if isinstance(thing, PLAIN):
        digest.update(repr(thing).encode())
        return
    parts = contents(thing)
    digest.update(f"{len(parts)};".encode())
    for part in parts:
        _feed(digest, part)


@singledispatch
def contents(thing) -> list:
    """Return what makes a thing what it is, in a fixed order.

    Of any object its attributes, but for what it has only remembered: what its class
    computes on demand, and references back.
    """
    if not hasattr(thing, "__dict__"):
        return [re.sub(" at 0x[0-9a-f]+", "", repr(thing))]
    given = set(getattr(type(thing), "__dataclass_fields__", ()))
    return [
        (name, value)
        for name, value in sorted(vars(thing).items())
        if name in given or not hasattr(getattr(type(thing), name, None), "__get__")
        if not isinstance(value, ref)
    ]


@contents.register(np.ndarray)
@contents.register(np.generic)
@contents.register(jax.Array)
def _(thing):
    array = np.asarray(thing)
    alike = _round(array) if array.dtype.kind == "f" and array.size else [array]
    return [array.dtype.str, str(array.shape), *(part.tobytes() for part in alike)]


def _round(array):
    """Leave out the last digits, in which machines differ by how they add."""
    seen = np.isfinite(array)
    exact = np.where(seen, array, 0).astype(float)
    exponent = np.frexp(np.abs(exact).max())[1]
    steps = np.rint(np.ldexp(exact, DIGITS - exponent)).astype(np.int64)
    return [np.where(seen, 0.0, array), exponent, steps]


@contents.register(list)
@contents.register(tuple)
def _(thing):
    return list(thing)


@contents.register(set)
@contents.register(frozenset)
def _(thing):
    return sorted(thing, key=repr)


@contents.register(dict)
def _(thing):
    return list(thing.items())


@contents.register(type)
def _(thing):
    return [thing.__module__, thing.__qualname__]


@contents.register(partial)
def _(thing):
    return [thing.func, thing.args, thing.keywords]


@contents.register(MethodType)
def _(thing):
    return [thing.__func__, thing.__self__]


@contents.register(FunctionType)
def _(thing):
    inner = inspect.unwrap(thing)
    cells = [cell.cell_contents for cell in inner.__closure__ or ()]
    return [inner.__qualname__, inner.__code__, inner.__defaults__, cells]


@contents.register(CodeType)
def _(thing):
    return [thing.co_code, thing.co_consts, thing.co_names]

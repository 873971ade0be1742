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

from metalgrad.likelihood import LineLikelihood

PACKAGES = ("metalgrad", "jax", "jaxlib", "numpyro")
# Bits that count of an array as a whole: six digits.  On another number of cores
# spectra were compressed to numbers that differ by a billionth (misfit, of 110, 3e-8).
DIGITS = 20
LOOKS = np.sqrt([1.0, 2.0, 3.0, 5.0])  # of waves along an array, which weigh it
PLAIN = (str, bytes, int, float, type(None))


def fingerprint(**parts) -> dict[str, str]:
    """Describe the parts of a fit, the packages and the device that it runs on.

    Of a function counts its own code, not that of what it calls; of an object its
    class's name, and its attributes; of an array four sums, and of these six digits,
    lest what was prepared on another machine should differ by its rounding.

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
    """Tell an array by a few sums, of which machines differ by less than is told.

    Of thousands of numbers one is always at the edge of being rounded otherwise.
    """
    seen = np.isfinite(array)
    exact = np.where(seen, array, 0).astype(float).ravel()
    size = np.linalg.norm(exact)
    exact = exact / (size or 1.0)
    sums = [np.cos(look * np.arange(1, len(exact) + 1)) @ exact for look in LOOKS]
    told = np.array([np.log(size or 1.0), *sums])
    return [
        np.where(seen, 0.0, array),
        np.rint(np.ldexp(told, DIGITS)).astype(np.int64),
    ]


@contents.register(LineLikelihood)
def _(thing):
    """Tell what data say, however the root of a precision was taken."""
    parts = vars(thing) | {"root": thing.precision()}
    parts["white"] = np.einsum("srl,sr->sl", thing.root, thing.white)
    return sorted(parts.items())


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

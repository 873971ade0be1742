"""What is kept of the draws of chains, chunk by chunk."""

import numpy as np


def thin(chunk: dict, done: int, stride: int) -> dict:
    """Keep spaxel maps in single precision, and all latents of every nth draw.

    Parameters
    ----------
    chunk : dict
        Of draws, as `chains.Run` collects them.
    done : int
        Draws before these.
    stride : int

    Returns
    -------
    dict
        Keyed ``group/name``.
    """
    some = np.arange(-done % stride, len(chunk["theta"]), stride)
    sites = chunk["sites"]
    flux = sites.pop("line_flux")
    groups = {
        "sites": {name: _single(value) for name, value in sites.items()},
        "statistics": chunk["statistics"],
        "kept": {
            "theta": chunk["theta"][some],
            "z": chunk["z"][some],
            "line_flux": flux[some],
        },
    }
    return {
        f"{group}/{name}": value
        for group, members in groups.items()
        for name, value in members.items()
    }


def join(logs) -> dict:
    """Put the draws of all chains together, by group and name."""
    whole = {}
    for path in list(logs[0].parts[0]):
        group, _, name = path.partition("/")
        whole.setdefault(group, {})[name] = np.stack([log.take(path) for log in logs])
    return whole


def _single(value):
    return value.astype(np.float32) if value.ndim > 2 or value.shape[-1] > 50 else value

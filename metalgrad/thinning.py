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
            "draw": done + some,
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


def look(logs, name: str, draws: int) -> np.ndarray:
    """Look at the first draws of a site in all chains, (chain, draw, ...)."""
    each = ([part[f"sites/{name}"] for part in log.parts] for log in logs)
    return np.stack([np.concatenate(parts)[:draws] for parts in each])


def join(logs, stride: int) -> dict:
    """Put the draws of all chains together, by group and name.

    Parameters
    ----------
    logs : list of Log
        One per chain.
    stride : int
        At every how many draws all latents are kept; where there are more, some go.
    """
    whole = {}
    for path in list(logs[0].parts[0]):
        group, _, name = path.partition("/")
        whole.setdefault(group, {})[name] = np.stack([log.take(path) for log in logs])
    kept = whole["kept"]
    some = kept.pop("draw")[0] % stride == 0
    if not some.all():
        whole["kept"] = {name: values[:, some] for name, values in kept.items()}
    return whole | {"every": stride}


def _single(value):
    return value.astype(np.float32) if value.ndim > 2 or value.shape[-1] > 50 else value

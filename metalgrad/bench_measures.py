"""What a benchmark measures: time but for compilation, effective draws, agreement."""

import os
import platform
import resource
import subprocess
import threading
import time
import warnings
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax
import numpy as np
from arviz_stats import mcse

from metalgrad.measures import bulk_draws, r_hat

ENOUGH = 400  # effective draws, of every parameter of the galaxy
COMPARED = ("slope", "level", "scatter")
FAR = 4.0  # Monte Carlo errors apart: not the same posterior (ours)
MIXED = 1.05  # R-hat above which chains have not found the posterior (ours)
LIBRARIES = ("jax", "jaxlib", "numpyro", "numpy", "blackjax", "nutpie", "emcee")


class Clock:
    """Wall time, and how much of it JAX spent on tracing and compiling.

    What several threads compile at once, or one compiles while it traces another
    function, counts once.
    """

    def __init__(self):
        self.spans, self.lock = [], threading.Lock()
        self.compiled, self.start = 0.0, time.perf_counter()
        self.mark = self.start
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event, seconds, **_):
        if event.startswith("/jax/core/compile"):
            end = time.perf_counter()
            with self.lock:
                self.spans.append((end - seconds, end))

    def lap(self) -> float:
        """Seconds since the last lap that were not compilation; adds up the latter."""
        now = time.perf_counter()
        with self.lock:
            spans, self.spans = self.spans, []
        compiled = union((max(start, self.mark), end) for start, end in spans)
        whole, self.mark = now - self.mark, now
        self.compiled += compiled
        return whole - compiled

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was made, compilation apart, as of the last lap."""
        return self.mark - self.start - self.compiled


def union(spans) -> float:
    """Length of what is covered by ``spans``, pairs of a start and an end."""
    total, reached = 0.0, -np.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return float(total)


def flatten(samples: dict) -> dict[str, np.ndarray]:
    """Give each number of each parameter its own name, (chain, draw)."""
    flat = {}
    for name, values in samples.items():
        values = np.asarray(values, float)
        for index in np.ndindex(values.shape[2:]):
            label = f"{name}[{','.join(map(str, index))}]" if index else name
            flat[label] = values[(..., *index)]
    return flat


def describe(samples: dict) -> dict:
    """Count effective draws, compare chains, and find moments with their errors.

    Parameters
    ----------
    samples : dict of str to array, (chain, draw, ...)

    Returns
    -------
    dict
        ``ess``, the least of the bulk, and ``worst``, whose that is; ``r_hat``, the
        largest; ``moments``, by parameter: mean, its Monte Carlo error, sd, its error.
    """
    flat = flatten(samples)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of many walkers with few steps
        return _describe(flat)


def _describe(flat):
    count = {name: float(bulk_draws(values)) for name, values in flat.items()}
    # A parameter that stands still has no effective draw.
    count = {name: n if np.isfinite(n) else 0.0 for name, n in count.items()}
    worst = min(count, key=count.get)
    spread = [float(r_hat(values)) for values in flat.values()]
    return {
        "ess": count[worst],
        "worst": worst,
        "r_hat": max(spread) if np.isfinite(spread).all() else None,
        "moments": {name: _moments(flat[name]) for name in COMPARED if name in flat},
    }


def _moments(values):
    errors = [
        float(mcse(values, method=method, chain_axis=0, draw_axis=1))
        for method in ("mean", "sd")
    ]
    return [float(values.mean()), errors[0], float(values.std()), errors[1]]


def disagreement(one: dict, other: dict) -> list[str]:
    """Say where two posteriors are not the same within Monte Carlo error.

    Parameters
    ----------
    one, other : dict
        ``moments`` of `describe`.
    """
    told = []
    for name in COMPARED:
        if name not in one or name not in other:
            told.append(f"{name} is missing")
            continue
        for what, place in (("mean", 0), ("sd", 2)):
            (a, error), (b, other_error) = (
                np.array(m[name][place : place + 2], float) for m in (one, other)
            )
            apart = abs(a - b) / np.hypot(error, other_error)
            if not apart < FAR:
                told.append(
                    f"{what} of {name} is {a:.3g} and not {b:.3g} "
                    f"({apart:.1f} Monte Carlo errors)"
                )
    return told


def verdict(row: dict, reference: dict | None) -> str:
    """Say why a row may not be compared with the reference; empty if it may."""
    if "failed" in row:
        return row["failed"]
    if not row.get("ess"):
        return "no draw within the time allowed"
    if row["r_hat"] is None or row["r_hat"] > MIXED:
        return f"chains disagree: R-hat {row['r_hat'] or np.nan:.2f}"
    if reference is None or "moments" not in reference:
        return "nothing to compare with"
    return "; ".join(disagreement(row["moments"], reference["moments"]))


def time_to(row: dict, enough: float = ENOUGH) -> float:
    """Seconds to ``enough`` effective draws: warm-up, and sampling in proportion."""
    return row["warmup"] + row["sampling"] * enough / row["ess"]


def peak_memory() -> float:
    """Most memory that this process has held [GB]: the device's, or its own."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 1e9
    scale = 1e9 if platform.system() == "Darwin" else 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def about(root: Path | None = None) -> dict:
    """Tell what a result was measured with: device, versions, commit, load."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "commit": _commit(root or Path(__file__).parents[1]),
    }


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit(root):
    """Short hash of the commit, with + where files differ from it; None without git."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()

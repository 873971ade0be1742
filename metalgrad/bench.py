"""How long until a posterior is known: metalgrad against what else could be used.

Each sampler runs in a process of its own, one after the other, under a time limit, on
the same data and the same posterior.  What counts is the time to 400 effective draws of
every parameter of the galaxy, starts and warm-up included.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metalgrad.bench_measures import ENOUGH, time_to, verdict
from metalgrad.files import NewFile

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"  # of a clone
CHAINS = 4
GRACE = 60.0  # s, to start and to compile in, beside a third of the limit
LARGE = 400  # spaxels from which on the exponent of the cost is fitted
MANY = 400  # spaxels at which one gradient is taken in single precision, too


class Trial(NamedTuple):
    """A case, its size (spaxels; of a cube, of a side), and who takes it on."""

    case: str
    size: int
    rivals: tuple[str, ...]


# The reference comes first.
FULL = (
    Trial("table", 100, ("metalgrad", "numpyro", "blackjax", "nutpie", "naive")),
    Trial("cube", 8, ("metalgrad", "numpyro")),
    Trial("cube", 20, ("metalgrad", "numpyro")),
    Trial("table", 9, ("metalgrad", "numpyro", "emcee", "naive")),
    Trial("table", 400, ("metalgrad", "numpyro")),
)
QUICK = (Trial("table", 9, ("metalgrad", "numpyro", "blackjax")),)
SIZES, FEW = (25, 100, 400, 1600, 6400), (25, 100)


def bench(
    device: str = "cpu",
    *,
    out: Path | None = None,
    quick: bool = False,
    limit: float = 240.0,
    seed: int = 1,
    trials: tuple[Trial, ...] | None = None,
    echo=print,
) -> dict:
    """Run all benchmarks; write what is measured as soon as it is.

    Parameters
    ----------
    device : str
        "cpu" or "cuda".
    out : Path, optional
        Folder of ``rivals_DEVICE.json``; that of a clone of the project by default.
    quick : bool
        Whether to run a small case only, to see that all works.
    limit : float
        Time for each sampler [s], compilation apart.
    seed : int
        Of data and samplers.
    trials : tuple of Trial, optional
    echo : callable
        Takes a line for each result.

    Returns
    -------
    dict
        ``about``, ``gradient``, ``rows``: as written.

    Raises
    ------
    ValueError
        If there is nowhere to write to, or the device cannot be used.
    """
    path = place(out) / f"rivals_{device}{'_quick' if quick else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"quick": quick, "seed": seed, "gradient": [], "rows": []}

    def keep(kind, found):
        result.update({"about": found["about"]} if found["about"] else {})
        if kind == "gradient" and "failed" not in found["row"]:
            result["exponent"] = exponent([*result["gradient"], found["row"]])
        result[kind].append(found["row"])
        with NewFile(path) as fresh:
            fresh.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
        echo(tell(found["row"]))

    for size, bits in _gradients(FEW if quick else SIZES):
        task = {"task": "gradient", "size": size, "bits": bits, "seed": seed}
        keep("gradient", measure(task, device, limit))
    for trial in trials or (QUICK if quick else FULL):
        reference = None
        for rival in trial.rivals:
            task = {"task": "sample", "case": trial.case, "size": trial.size}
            task |= {"rival": rival, "seed": seed, "chains": CHAINS, "limit": limit}
            found = measure(task, device, limit)
            row, reference = judge(found["row"], reference)
            keep("rows", found | {"row": row})
    echo(f"written to {path}")
    return result


def place(out: Path | None) -> Path:
    """Find where results go.

    Raises
    ------
    ValueError
        If no folder is given and this is not a clone of the project.
    """
    if out is not None:
        return Path(out)
    if not RESULTS.is_dir():
        raise ValueError(
            "this is not a clone of the project, which keeps results in "
            "benchmarks/results; say where to write them: --out DIR"
        )
    return RESULTS


def measure(task: dict, device: str, limit: float) -> dict:
    """Do a task in a process of its own.

    Returns
    -------
    dict
        ``row`` and ``about``.  A row that came to nothing says why in ``failed``.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if task.get("rival") in ("numpyro", "naive") and device == "cpu":
        # NumPyro runs chains side by side where there are as many devices.
        flags += f" --xla_force_host_platform_device_count={task['chains']}"
    around = os.environ | {"JAX_PLATFORMS": device, "XLA_FLAGS": flags}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        command = [sys.executable, "-m", "metalgrad.bench_worker"]
        command += [json.dumps(task), str(out)]
        reason = _run(command, around, GRACE + limit * 4 / 3)
        found = _read(out) if out.exists() else None
    if found is None:
        found = {"row": dict(task), "about": None}
        found["row"].pop("task")
        reason = reason or "it left no result"
    if reason and not found["row"].get("ess"):
        found["row"]["failed"] = reason
    return found


def _read(path):
    """Read a result; what is not a number becomes null, which JSON knows."""
    return json.loads(path.read_text(), parse_constant=lambda _: None)


def _run(command, around, seconds):
    """Run a command; say why it came to nothing, if it did."""
    try:
        done = subprocess.run(
            command, env=around, timeout=seconds, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        return f"no draw within {seconds:.0f} s, compilation included"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        return f"it failed: {lines[-1]}"
    return ""


def judge(row: dict, reference: dict | None) -> tuple[dict, dict]:
    """Add to a row whether it may be compared, and what it says; and the reference.

    Parameters
    ----------
    row : dict
    reference : dict or None
        The first row of a case, which is compared with nothing.

    Returns
    -------
    row, reference : dict
        With ``because``, why the row may not be compared (empty if it may), and if
        there were draws ``seconds`` to `ENOUGH` effective ones, ``extrapolated`` if
        there were not so many, ``cold`` with compilation, and ``ratio`` to the
        reference.
    """
    if "skipped" in row:
        return row, reference
    because = verdict(row, row if reference is None else reference)
    row = row | {"because": because}
    if row.get("ess"):
        seconds = time_to(row)
        row |= {"seconds": seconds, "extrapolated": row["ess"] < ENOUGH}
        row["cold"] = seconds + row["compilation"]
        row["ess_per_second"] = row["ess"] / (row["warmup"] + row["sampling"])
        if reference and "seconds" in reference:
            row["ratio"] = seconds / reference["seconds"]
    return row, reference or row


def exponent(rows: list[dict]) -> float | None:
    """Fit the power of the number of spaxels that a gradient's time goes with."""
    large = [r for r in rows if r["bits"] == 64 and r["size"] >= LARGE]
    if len(large) < 2:
        return None
    size, seconds = (np.log([r[key] for r in large]) for key in ("size", "median"))
    return float(np.polyfit(size, seconds, 1)[0])


def tell(row: dict) -> str:
    """Say in a line what a row says."""
    if "bits" in row:
        if "failed" in row:
            return f"gradient of {row['size']} spaxels: {row['failed']}"
        return (
            f"gradient of {row['size']} spaxels in {row['bits']} bits: "
            f"{row['median'] * 1e6:.1f} us, {row['memory']:.2f} GB, compiled in "
            f"{row['compilation']:.1f} s"
        )
    start = f"{row['case']} of {row.get('spaxels', row['size'])}, {row['rival']}: "
    if "skipped" in row:
        return start + f"skipped, {row['skipped']}"
    if "seconds" not in row:
        return start + row["because"]
    about = " by extrapolation" if row["extrapolated"] else ""
    ratio = f", {row['ratio']:.1f} x the first" if "ratio" in row else ""
    flaw = f"; not comparable: {row['because']}" if row["because"] else ""
    return (
        f"{start}{row['seconds']:.1f} s to an ESS of {ENOUGH}{about} "
        f"({row['cold']:.1f} s with compilation{ratio}){flaw}"
    )


def check_device(device: str) -> None:
    """Refuse a device that JAX does not have here.

    Raises
    ------
    ValueError
        If so.
    """
    # In another process, lest this one should take a GPU's memory away.
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    if _run(command, os.environ | {"JAX_PLATFORMS": device}, GRACE):
        raise ValueError(
            f"no {device} device can be used here; install metalgrad[cuda] on a "
            "machine with an NVIDIA GPU, or give --device cpu"
        )


def _gradients(sizes):
    yield from ((size, 64) for size in sizes)
    yield (MANY if MANY in sizes else sizes[-1]), 32

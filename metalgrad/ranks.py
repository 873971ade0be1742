"""Simulation-based calibration: fit galaxies of the prior, rank the truth in each."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
from astropy.table import Table
from jax import random
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from metalgrad import coverage
from metalgrad.fingerprint import fingerprint
from metalgrad.inference import NIRSPEC, Shape, machine, prepare
from metalgrad.ledger import Ledger
from metalgrad.linemaps import LineMaps
from metalgrad.replicas import check_template
from metalgrad.simulate import PIXEL, simulate
from metalgrad.spaxels import Spaxels
from metalgrad.targets import load_target
from metalgrad.textures import Independent
from metalgrad.trials import RANKED, rank_one

LEDGER = "ranks.jsonl"
# The synthetic table, all ours: S/N of [O III] at the centre, other lines relative to
# it, and the disc's radius and scale length [kpc].
BRIGHTEST, RADIUS, SCALE = 30.0, 3.0, 1.0
STRENGTH = {
    "OII": 0.3,
    "NeIII": 0.1,
    "Hbeta": 0.2,
    "OIII": 1,
    "Halpha": 0.6,
    "SII": 0.1,
}
TARGET = "cosmos24108"  # of which the synthetic cube is a mock


def sbc(
    model,
    *,
    out: str | Path,
    seed: int,
    data=None,
    n: int = 500,
    spaxels: int = 150,
    psf=NIRSPEC,
    slice_angle: float | None = None,
    warmup: int = 200,
    draws: int = 300,
    chains: int = 2,
    target_accept: float = 0.8,
    brightest: float = 1000.0,
    progress: bool = True,
) -> Table:
    """Calibrate an inference by simulation (Talts et al. 2018, arXiv:1804.06788).

    Galaxies are drawn from the model's prior, data of each from the model, and fitted
    by the model; in how many does an interval hold the truth?  Positions, errors, PSF
    and the centres of priors that follow from data are a template's in all of them.

    Parameters
    ----------
    model : Model
    out : str or path
        Folder for ``ranks.jsonl``, a line per galaxy.  The same call goes on from it,
        and adds to it where ``n`` is larger.
    seed : int
        Of all randomness.  A galaxy is the same however many are drawn.
    data : Spaxels, LineMaps or LineLikelihood, optional
        The template, for an answer about *your* data; by default that of `template`.
    n : int
        Number of galaxies.
    spaxels : int
        Of the default template.
    psf, slice_angle, target_accept
        As for `metalgrad.fit`.
    warmup, draws, chains : int
        Of each fit.  The truth is ranked among 99 draws that lie evenly far apart;
        where chains disagree or are worth fewer independent ones, they go on, to twice
        and at most four times the draws.
    brightest : float
        S/N of a line above which no spaxel of a galaxy may be, ours: what flat fields
        and wavelengths allow.  Others are drawn instead.  Priors wide enough for any
        galaxy hold some of S/N 10⁸ where they meet, which nobody observes.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Table
        From `summarise`.

    Raises
    ------
    ValueError
        If ``out`` holds the ranks of another calibration, no data can be drawn for the
        template, or fewer than two fits gave ranks.
    """
    given = template(model, spaxels, seed) if data is None else data
    prepared = prepare(model, given, psf, slice_angle)
    check_template(prepared)
    settings = {"warmup": warmup, "draws": draws, "chains": chains, "seed": seed}
    settings |= {"target_accept": target_accept, "brightest": brightest}
    about = fingerprint(model=model, data=prepared, **settings)
    ledger = Ledger(Path(out) / LEDGER, about, "replica")
    left = [number for number in range(n) if number not in ledger.entries]
    with jax.enable_x64(new_val=True), threadpool_limits(1, "blas"):
        run = machine(model, Shape.of(prepared), warmup, target_accept)
        each = {"draws": draws, "chains": chains, "brightest": brightest}
        trial = partial(rank_one, run, prepared, **each)
        with tqdm(total=n, initial=n - len(left), disable=not progress) as bar:
            for number in left:
                key = random.fold_in(random.key(seed), number)
                ledger.add({"replica": number} | trial(key=key))
                bar.update()
    return summarise([ledger.entries[number] for number in range(n)], seed)


def template(model, spaxels: int, seed: int):
    """Make data that lend their positions and errors, of a kind made for the model.

    Where spaxels depart for themselves: line fluxes in a disc, of equal errors and an
    S/N that falls with radius.  Otherwise a mock cube of COSMOS24108.

    Parameters
    ----------
    model : Model
    spaxels : int
        Of a cube, about so many.
    seed : int

    Returns
    -------
    LineMaps or Spaxels
    """
    if not isinstance(model.texture, Independent):
        target = load_target(TARGET)
        target = replace(target, radius=float(PIXEL * np.sqrt(spaxels / np.pi)))
        return Spaxels.select(simulate(target, seed=seed), target)
    area, turn = np.random.default_rng(seed).random((2, spaxels))
    radius, angle = RADIUS * np.sqrt(area), 2 * np.pi * turn
    flux = np.outer(BRIGHTEST * np.exp(-radius / SCALE), list(STRENGTH.values()))
    position = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return LineMaps(tuple(STRENGTH), flux, np.ones_like(flux), position, "kpc")


def gather(entries: list[dict], seed: int) -> dict[str, np.ndarray]:
    """Collect where truths lie in their posteriors, (replica,) by parameter.

    Parameters
    ----------
    entries : list of dict
        From `metalgrad.trials.rank_one`; a fit that failed has no ranks.
    seed : int
        Of `metalgrad.coverage.place_evenly`.

    Raises
    ------
    ValueError
        If fewer than two have ranks.
    """
    ranked = [entry for entry in entries if "rank" in entry]
    if len(ranked) < 2:
        reasons = {entry["failed"] for entry in entries if "failed" in entry}
        raise ValueError(
            f"{len(ranked)} of {len(entries)} fits gave ranks, where two at least are "
            f"needed; draw more galaxies ({'; '.join(sorted(reasons)) or 'all fine'})"
        )
    names = ranked[0]["rank"]
    found = {name: [entry["rank"][name] for entry in ranked] for name in names}
    return {
        name: coverage.place_evenly(np.array(ranks), RANKED, seed + number)
        for number, (name, ranks) in enumerate(found.items())
    }


def summarise(entries: list[dict], seed: int) -> Table:
    """Make the table of coverage, and say what happened to all galaxies.

    Parameters
    ----------
    entries : list of dict
        From `metalgrad.trials.rank_one`.
    seed : int

    Returns
    -------
    Table
        As `metalgrad.coverage.tabulate`, with ``contraction``: 1 less the mean variance
        of the posteriors over that of the truths.  Near 0 data say nothing, and to
        cover is no feat.  In ``meta`` are ``galaxies``, how many ``failed`` (they have
        no ranks) and were ``unconverged`` (theirs count), ``again`` (longer chains),
        ``diverging`` (mean share of draws) and ``seconds`` (mean of a fit).
    """
    ranked = [entry for entry in entries if "rank" in entry]
    table = coverage.tabulate(gather(entries, seed), seed)
    contraction = []
    for name in table["parameter"]:
        left = np.mean([entry["sd"][name] ** 2 for entry in ranked])
        prior = np.var([entry["truth"][name] for entry in ranked])
        contraction.append(1 - left / prior)
    table["contraction"] = np.array(contraction)
    table["contraction"].info.format = ".3f"
    table.meta |= {
        "galaxies": len(entries),
        "failed": len(entries) - len(ranked),
        "unconverged": sum(not entry["converged"] for entry in ranked),
        "again": sum(entry["again"] for entry in ranked),
        "diverging": float(np.mean([entry["diverging"] for entry in ranked])),
        "seconds": float(np.mean([entry["seconds"] for entry in ranked])),
    }
    return table


def read(folder: str | Path, n: int) -> list[dict]:
    """Read the first ``n`` galaxies that `sbc` left in a folder."""
    _, *lines = (Path(folder) / LEDGER).read_text(encoding="utf-8").splitlines()
    entries = sorted(map(json.loads, lines), key=lambda entry: entry["replica"])
    return entries[:n]


def tell(table: Table) -> str:
    """Say in words what a table of `summarise` shows."""
    meta, outside = table.meta, table["parameter"][~table["in_band"]]
    said = [
        f"{meta['galaxies']} galaxies: {meta['failed']} fits failed and are not in "
        f"the table, {meta['unconverged']} did not converge and are; "
        f"{meta['again']} needed longer chains. A fit took {meta['seconds']:.1f} s.",
        f"Ranks of {len(outside)} of {len(table)} parameters leave the 95 % band"
        + (f" ({', '.join(outside)})" if len(outside) else "")
        + "; of one in twenty they would by chance.",
    ]
    return "\n".join(said)

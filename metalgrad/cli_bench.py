"""The command that measures how long a posterior takes, and by what else."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from metalgrad.bench import bench, check_device, place


def measure(
    *,
    device: Annotated[Literal["cpu", "cuda"], typer.Option()] = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; a clone's by default.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small case only.")] = False,
    limit: Annotated[
        float, typer.Option(min=1, help="For each sampler, without compilation [s].")
    ] = 240.0,
    seed: Annotated[int, typer.Option(help="Of data and samplers.")] = 1,
):
    """Time metalgrad, and samplers that could be used instead, on the same posterior.

    An hour or more on two cores; --quick takes a few minutes.  Samplers that are
    not installed are skipped: the extra ``bench`` brings them.
    """
    place(out)
    check_device(device)
    bench(device, out=out, quick=quick, limit=limit, seed=seed, echo=typer.echo)

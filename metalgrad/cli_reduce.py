"""The command that makes a cube from what the archive has."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from metalgrad.options import Out, read_position
from metalgrad.reduction import STEPS, reduce
from metalgrad.targets import load_target


def reduce_target(
    target: Annotated[str, typer.Argument(help="Card of a target, or your own.")],
    *,
    out: Out,
    pid: Annotated[int, typer.Option(min=1, help="Number of the programme.")] = 1893,
    steps: Annotated[
        str, typer.Option(help="Which to take, separated by commas.")
    ] = ",".join(STEPS),
    center: Annotated[str, typer.Option(help='"RA DEC" of the galaxy.')] = "",
    context: Annotated[str, typer.Option(help="Of CRDS, such as jwst_1094.pmap.")] = "",
    jwst: Annotated[
        str, typer.Option(help="Version that the pipeline must have.")
    ] = "",
    background: Annotated[
        bool, typer.Option(help="Subtract the dedicated background exposures.")
    ] = True,
    spaxel: Annotated[float, typer.Option(min=0.01, help="Side [arcsec].")] = 0.05,
    clip: Annotated[
        float, typer.Option(min=1, help="Limit of the clipping [robust sigma].")
    ] = 5.0,
    parameters: Annotated[
        Path | None,
        typer.Option(help="TOML file: tables of parameters, as [spec3.cube_build]."),
    ] = None,
):
    """Reduce a galaxy's exposures to a cube: download, three stages, clipping.

    What is there is not made again: the same command goes on where it was.
    """
    galaxy = load_target(target)
    if center:
        galaxy = replace(galaxy, position=read_position(center, "--center"))
    product = reduce(
        galaxy,
        out,
        program=pid,
        steps=[step.strip() for step in steps.split(",") if step.strip()],
        version=jwst,
        context=context,
        background=background,
        spaxel=spaxel,
        clip=clip,
        parameters=None if parameters is None else _read(parameters),
    )
    typer.echo(f"written to {product}")


def _read(path):
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not TOML: {error}; correct it there") from error

"""The command that calibrates an inference by simulation."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from metalgrad.files import NewFile
from metalgrad.model import load_model
from metalgrad.options import Out, plotter, read_data, save
from metalgrad.ranks import gather, read, sbc, tell
from metalgrad.targets import load_target

AIMLESS = "a cube needs a galaxy to look for: give --target, a card or your own"


def calibrate(
    model: Annotated[str, typer.Argument(help="Card of a model.")] = "gradient",
    *,
    out: Out,
    n: Annotated[int, typer.Option(min=2, help="Number of galaxies.")] = 500,
    spaxels: Annotated[
        int, typer.Option(min=2, help="Of each galaxy, if no data are given.")
    ] = 150,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
    data: Annotated[
        Path | None, typer.Option(help="Cube or flux table that lends its errors.")
    ] = None,
    target: Annotated[str, typer.Option(help="Card of the data's target.")] = "",
    calibration: Annotated[str, typer.Option(help="Card of a calibration.")] = "",
    chains: Annotated[int, typer.Option(min=2)] = 2,
    warmup: Annotated[int, typer.Option(min=1)] = 200,
    draws: Annotated[int, typer.Option(min=4)] = 300,
    brightest: Annotated[
        float, typer.Option(min=1.0, help="S/N that no line of a galaxy exceeds.")
    ] = 1000.0,
):
    """Fit galaxies of a model's prior, and count where intervals hold the truth.

    The same command goes on where it was, and with a larger --n adds galaxies.
    """
    galaxy = load_target(target) if target else None
    table = sbc(
        load_model(model, calibration=calibration or None),
        out=out,
        seed=seed,
        data=None if data is None else read_data(data, galaxy, aimless=AIMLESS),
        n=n,
        spaxels=spaxels,
        warmup=warmup,
        draws=draws,
        chains=chains,
        brightest=brightest,
    )
    with NewFile(out / "coverage.ecsv") as fresh:
        table.write(fresh, format="ascii.ecsv")
    if find_spec("matplotlib") is not None:
        places = gather(read(out, n), seed)
        save({"ranks": plotter("coverage_plot").ranks(places, seed)}, out)
    typer.echo("\n".join(table.pformat(max_lines=-1, max_width=-1)))
    typer.echo(tell(table))
    typer.echo(f"written to {out}")

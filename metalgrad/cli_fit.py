"""The command that fits a galaxy, and writes all that is known of it."""

import shutil
import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

import jax
import typer

from metalgrad.budget import tell, variance_budget
from metalgrad.checks import ConvergenceWarning
from metalgrad.files import NewFile, refuse_to_overwrite
from metalgrad.inference import fit as fit_model
from metalgrad.lsf import constant
from metalgrad.maps import write_maps
from metalgrad.model import load_model
from metalgrad.options import (
    Masks,
    Out,
    Overwrite,
    Resolution,
    Seed,
    aim,
    can_draw,
    cover,
    plotter,
    read_data,
    refuse_idle,
    save,
)
from metalgrad.psf import nirspec
from metalgrad.refitting import refit as fit_again
from metalgrad.spaxels import Spaxels
from metalgrad.summary import describe, summary


def fit(
    data: Annotated[Path, typer.Argument(help="Cube (s3d), spectrum or flux table.")],
    *,
    out: Out,
    seed: Seed = 0,
    target: Annotated[str, typer.Option(help="Card of a target, or your own.")] = "",
    redshift: Annotated[float | None, typer.Option(help="Of the galaxy.")] = None,
    center: Annotated[str, typer.Option(help='"RA DEC" of the centre.')] = "",
    radius: Annotated[
        float | None, typer.Option(help="Of the fit [arcsec]; 1.5 without a card.")
    ] = None,
    kpc_per_arcsec: Annotated[float | None, typer.Option(help="Scale.")] = None,
    mask: Masks = None,
    region: Annotated[Path | None, typer.Option(help="DS9 region file.")] = None,
    resolution: Resolution = None,
    psf_scale: Annotated[
        float, typer.Option(min=0, help="Width of the PSF over NIRSpec's; 0 for none.")
    ] = 1.0,
    slice_angle: Annotated[
        float | None, typer.Option(help="Of the slices, from +y to -x [deg].")
    ] = None,
    model: Annotated[str, typer.Option(help="Card of a model.")] = "gradient",
    calibration: Annotated[str, typer.Option(help="Card of a calibration.")] = "",
    chains: Annotated[int, typer.Option(min=1)] = 4,
    warmup: Annotated[int, typer.Option(min=1)] = 300,
    draws: Annotated[
        int | None, typer.Option(min=4, help="Of a chain; or as many as needed.")
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Without spaxels of too high Pareto k.")
    ] = False,
    device: Annotated[Literal["cpu", "cuda"] | None, typer.Option()] = None,
    overwrite: Overwrite = False,
):
    """Fit a cube, a spectrum or a table of line fluxes.

    A fit that was interrupted goes on where it was when the same command is repeated.
    """
    refuse_to_overwrite(out / "posterior.nc", overwrite=overwrite)
    _choose_device(device)
    galaxy = aim(target, redshift, center, radius, kpc_per_arcsec)
    for lack in getattr(galaxy, "missing", ()):
        typer.echo(f"the card of {galaxy.name} does not have: {lack}", err=True)
    idle = {"region": region, "radius": radius, "mask": mask}
    idle |= {"psf_scale": psf_scale != 1, "slice_angle": slice_angle is not None}
    refuse_idle(data, **idle, resolution=resolution)
    galaxy = galaxy and cover(galaxy, mask)
    lsf = constant(resolution) if resolution else None
    spaxels = read_data(data, galaxy, region=region, lsf=lsf)
    story = load_model(model, calibration=calibration or None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # described at the end
        settings = {
            "seed": seed,
            "psf": nirspec(psf_scale) if psf_scale else None,
            "slice_angle": slice_angle,
            "warmup": warmup,
            "draws": draws,
            "chains": chains,
        }
        kept = out / "checkpoint"
        posterior = fit_model(story, spaxels, checkpoint=kept, **settings)
        if refit:
            posterior = fit_again(posterior, story, spaxels, **settings)
    posterior.attrs["command"] = " ".join(["metalgrad", *sys.argv[1:]])
    posterior.attrs["input"] = str(data)
    write_fit(posterior, spaxels, out)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)


def _choose_device(device):
    if device is None:
        return
    jax.config.update("jax_platforms", device)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX has both
        raise ValueError(
            f"no {device} device can be used here; install metalgrad[cuda] on a "
            "machine with an NVIDIA GPU, or leave --device out"
        ) from error


def write_fit(posterior, data, out) -> None:
    """Write posterior, summary, maps and pictures into a folder."""
    with NewFile(out / "posterior.nc") as fresh:
        posterior.to_netcdf(fresh, engine="h5netcdf")
    with NewFile(out / "summary.ecsv") as fresh:
        summary(posterior).write(fresh, format="ascii.ecsv")
    if posterior.attrs["shape"]:
        with NewFile(out / "maps.fits") as fresh:
            write_maps(posterior, fresh)
    typer.echo(describe(posterior))
    _write_budget(posterior, out)
    if can_draw():
        _draw(posterior, data, out)
    typer.echo(f"written to {out}")


def _write_budget(posterior, out):
    """Write and say what makes the gradient uncertain, where that can be told."""
    try:
        table = variance_budget(posterior)
    except ValueError as error:
        return typer.echo(f"no budget of the variance: {error}", err=True)
    with NewFile(out / "budget.ecsv") as fresh:
        table.write(fresh, format="ascii.ecsv")
    return typer.echo(f"\nwhat the variance is made of:\n{tell(table)}\n")


def _draw(posterior, data, out):
    plot = plotter("plot")
    pictures = {"gradient": plot.gradient, "corner": plot.corner, "trace": plot.trace}
    if posterior.attrs["shape"]:
        pictures["maps"] = plot.maps
    figures = {name: draw(posterior) for name, draw in pictures.items()}
    if isinstance(data, Spaxels):
        figures["spectra"] = plot.spectra(posterior, data)
    save(figures, out)

"""The command line: a thin face over the Python API."""

import os
import shutil
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import jax
import typer

from metalgrad import cards, criticism
from metalgrad.checks import ConvergenceWarning
from metalgrad.cli_bench import measure
from metalgrad.cli_classical import classical
from metalgrad.cli_reduce import reduce_target
from metalgrad.cli_sbc import calibrate
from metalgrad.cli_sed import weigh
from metalgrad.comparison import compare, open_fit, to_table, verdict
from metalgrad.files import NewFile, refuse_to_overwrite
from metalgrad.inference import fit as fit_model
from metalgrad.lsf import constant
from metalgrad.maps import write_maps
from metalgrad.model import load_model
from metalgrad.options import (
    Out,
    Overwrite,
    Resolution,
    aim,
    plotter,
    read_data,
    refuse_idle,
    save,
)
from metalgrad.psf import nirspec
from metalgrad.refitting import refit as fit_again
from metalgrad.simulate import simulate as simulate_cube
from metalgrad.spaxels import Spaxels
from metalgrad.targets import load_target

app = typer.Typer(
    name="metalgrad",
    help="Metallicity gradients of galaxies from every spaxel's spectrum.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # else units in brackets would be styles
)
app.command("bench")(measure)
app.command()(classical)
app.command("reduce")(reduce_target)
app.command("sbc")(calibrate)
app.command("sed")(weigh)
WORTH_KEEPING = 0.1  # seconds of compilation, ours
USAGE = typer.BadParameter.__base__  # of every wrong option; Typer has no name for it

Kind = Literal["models", "calibrations", "targets"]
Seed = Annotated[int, typer.Option(help="Of all randomness.")]


@app.command()
def fit(
    data: Annotated[Path, typer.Argument(help="Cube (s3d), spectrum or flux table.")],
    *,
    out: Out,
    seed: Seed = 0,
    target: Annotated[str, typer.Option(help="Card of a target, or your own.")] = "",
    redshift: Annotated[float | None, typer.Option(help="Of the galaxy.")] = None,
    center: Annotated[str, typer.Option(help='"RA DEC" of the centre.')] = "",
    radius: Annotated[float | None, typer.Option(help="Of the fit [arcsec].")] = None,
    kpc_per_arcsec: Annotated[float | None, typer.Option(help="Scale.")] = None,
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
    draws: Annotated[int, typer.Option(min=4)] = 1000,
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
    refuse_idle(data, region=region, radius=radius, resolution=resolution)
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
    _write_fit(posterior, spaxels, out)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)


@app.command()
def simulate(
    *,
    target: Annotated[str, typer.Option(help="Card of a target, or your own.")],
    out: Out,
    seed: Seed = 0,
    slope: Annotated[float | None, typer.Option(help="True slope [dex/kpc].")] = None,
    overwrite: Overwrite = False,
):
    """Draw a mock cube of a target, in the layout of the jwst pipeline's s3d."""
    galaxy = load_target(target)
    path = out / f"{galaxy.name}_mock_s3d.fits"
    refuse_to_overwrite(path, overwrite=overwrite)
    truth = {} if slope is None else {"slope": slope}
    cube = simulate_cube(galaxy, seed=seed, truth=truth)
    with NewFile(path) as fresh:
        cube.write(fresh)
    typer.echo(path)


@app.command("compare")
def compare_fits(
    fits: Annotated[list[Path], typer.Argument(help="posterior.nc, or its folder.")],
    *,
    out: Annotated[Path | None, typer.Option(help="Table to write, .ecsv.")] = None,
    overwrite: Overwrite = False,
):
    """Compare models of the same data by leave-one-spaxel-out."""
    if out is not None:
        refuse_to_overwrite(out, overwrite=overwrite)
    stems = [str(p).removesuffix("posterior.nc").removesuffix(".nc") for p in fits]
    names = [Path(stem).resolve().name for stem in stems]
    names = names if len({*names}) == len(names) else map(str, fits)
    table = compare(dict(zip(names, fits, strict=True)))
    plain = table[["elpd_diff", "dse", "weight", "p", "elpd", "se", "diag_elpd"]]
    typer.echo(plain.to_string(float_format="{:.2f}".format))
    typer.echo("\n".join([verdict(table), *table.attrs["advice"]]))
    if out is not None:
        with NewFile(out) as fresh:
            to_table(table).write(fresh, format="ascii.ecsv")
        if find_spec("matplotlib") is not None:
            from arviz_plots import plot_compare

            with NewFile(out.with_suffix(".png")) as fresh:
                plot_compare(table, backend="matplotlib").savefig(fresh)


@app.command()
def check(
    fit: Annotated[Path, typer.Argument(help="posterior.nc, or its folder.")],
    *,
    seed: Seed = 0,
    overwrite: Overwrite = False,
):
    """Ask whether a fit foretells its data, and whether priors drive it."""
    folder = fit if fit.is_dir() else fit.parent
    posterior = open_fit(fit)
    refuse_to_overwrite(folder / "check.ecsv", overwrite=overwrite)
    table = criticism.tabulate(posterior, seed=seed)
    is_map = len(posterior.attrs.get("shape", [])) > 1
    images = criticism.chi2_images(posterior) if is_map else {}
    if images:
        with NewFile(folder / "check.fits") as fresh:
            write_maps(posterior, fresh, images)
    if find_spec("matplotlib") is not None:
        plot = plotter("criticism_plot")
        figures = {"pit": plot.pit(criticism.pit(posterior, seed=seed))}
        figures |= {"chi2": plot.chi2_map(posterior, images)} if images else {}
        save(figures, folder, "check_")
    with NewFile(folder / "check.ecsv") as fresh:
        table.write(fresh, format="ascii.ecsv")
    typer.echo("\n".join(table.pformat(max_lines=-1, max_width=-1)))
    typer.echo(f"written to {folder}")


@app.command("list")
def list_cards(kind: Annotated[Kind, typer.Argument()]):
    """List the models, calibrations or targets that can be named."""
    for name in cards.names(kind):
        card = cards.read(kind, name)
        about = card.get("summary") or card.get("reference", "")
        typer.echo(f"{name:22} {about}")


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


def _write_fit(posterior, data, out):
    """Write posterior, summary, maps and pictures."""
    from metalgrad.summary import describe, summary

    with NewFile(out / "posterior.nc") as fresh:
        posterior.to_netcdf(fresh, engine="h5netcdf")
    with NewFile(out / "summary.ecsv") as fresh:
        summary(posterior).write(fresh, format="ascii.ecsv")
    if posterior.attrs["shape"]:
        with NewFile(out / "maps.fits") as fresh:
            write_maps(posterior, fresh)
    typer.echo(describe(posterior))
    _write_budget(posterior, out)
    if find_spec("matplotlib") is None or find_spec("corner") is None:
        typer.echo("no pictures: install metalgrad[plot] for them", err=True)
    else:
        _draw(posterior, data, out)
    typer.echo(f"written to {out}")


def _write_budget(posterior, out):
    """Write and say what makes the gradient uncertain, where that can be told."""
    from metalgrad.budget import tell, variance_budget

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


def _keep_compiled():
    """Keep compiled programs between runs, unless the user says where or not at all."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "metalgrad"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)


def main():
    """Run the command line; one sentence, and no traceback, for wrong input."""
    _keep_compiled()
    try:
        code = app(standalone_mode=False)
    except (ValueError, OSError) as error:
        typer.echo(f"metalgrad: {error}", err=True)
        sys.exit(1)
    except USAGE as error:
        typer.echo(f"metalgrad: {error.format_message()}", err=True)
        sys.exit(2)
    except typer.Abort:
        code = 130
    if code:
        sys.exit(code)

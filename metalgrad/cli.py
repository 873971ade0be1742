"""The command line: a thin face over the Python API."""

import os
import sys
from importlib.metadata import version as metalgrad_version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import jax
import typer

from metalgrad import cards, criticism
from metalgrad.cli_bench import measure
from metalgrad.cli_classical import classical
from metalgrad.cli_fit import fit
from metalgrad.cli_reduce import reduce_target
from metalgrad.cli_sbc import calibrate
from metalgrad.cli_sed import weigh
from metalgrad.comparison import compare, open_fit, to_table, verdict
from metalgrad.files import NewFile, refuse_to_overwrite
from metalgrad.maps import write_maps
from metalgrad.options import Out, Overwrite, Seed, plotter, save
from metalgrad.simulate import simulate as simulate_cube
from metalgrad.targets import load_target

app = typer.Typer(
    name="metalgrad",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # else units in brackets would be styles
)
app.command()(fit)
app.command("bench")(measure)
app.command()(classical)
app.command("reduce")(reduce_target)
app.command("sbc")(calibrate)
app.command("sed")(weigh)
WORTH_KEEPING = 0.1  # seconds of compilation, ours
USAGE = typer.BadParameter.__base__  # of every wrong option; Typer has no name for it

Kind = Literal["models", "calibrations", "targets"]


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


def _keep_compiled():
    """Keep compiled programs between runs, unless the user says where or not at all."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "metalgrad"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)


def _tell_version(wanted: bool):  # noqa: FBT001
    if wanted:
        typer.echo(f"metalgrad {metalgrad_version('metalgrad')}")
        raise typer.Exit
    return wanted


@app.callback()
def about(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_tell_version,
            is_eager=True,
            help="Say the version, and end.",
        ),
    ] = False,
):
    """Metallicity gradients of galaxies from every spaxel's spectrum."""
    del version


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

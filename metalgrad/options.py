"""What several commands ask for, and what they all do with it."""

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from astropy.io import fits

from metalgrad.cubes import Cube
from metalgrad.files import NewFile
from metalgrad.layouts import SPECTRA
from metalgrad.linemaps import LineMaps
from metalgrad.positions import read_position
from metalgrad.spaxels import Spaxels
from metalgrad.targets import Target, load_target

TABLES = {".ecsv", ".csv", ".vot"}
AIMLESS = (
    "a cube needs a galaxy to look for: give --target, or --redshift, --center and "
    "--radius"
)
SPELT = {"position": "center", "kpc_per_arcsec": "kpc-per-arcsec"}
Out = Annotated[Path, typer.Option(help="Folder to write to.")]
Resolution = Annotated[
    float | None,
    typer.Option(min=1, help="R of the cube's grating, if it is not the prism's."),
]
Seed = Annotated[int, typer.Option(help="Of all randomness.")]
Masks = Annotated[
    list[str] | None, typer.Option(help='Circle to leave out: "RA DEC ARCSEC".')
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def aim(target, redshift, center, radius, kpc_per_arcsec):
    """Combine a target card with what the command line says; None without either."""
    given = {"redshift": redshift, "radius": radius, "kpc_per_arcsec": kpc_per_arcsec}
    given = {key: value for key, value in given.items() if value is not None}
    if center:
        given["position"] = read_position(center, "--center")
    if target:
        card = load_target(target)
        if redshift is not None and kpc_per_arcsec is None:  # nor is that the card's
            about = {"radius": card.radius, "magnification": card.magnification}
            moved = Target.at(redshift=redshift, **about)
            given["kpc_per_arcsec"] = moved.kpc_per_arcsec
        return replace(card, **given)
    if redshift is None and given:
        raise ValueError(
            f"{', '.join(f'--{SPELT.get(key, key)}' for key in given)} say where a "
            "galaxy is, and do nothing without --redshift or --target; give one"
        )
    if redshift is None:
        return None
    return Target.at(**{"radius": 1.5, "name": "target"} | given)


def cover(galaxy, circles):
    """Add circles, "RA DEC ARCSEC" each, to what is left out of a galaxy."""
    return replace(galaxy, masks=galaxy.masks + tuple(map(_circle, circles or ())))


def _circle(text):
    """Read a mask, "RA DEC ARCSEC"."""
    place, _, size = text.strip().rpartition(" ")
    try:
        return read_position(place, "--mask"), float(size.removesuffix('"'))
    except ValueError as error:
        raise ValueError(
            f'--mask {text!r} cannot be read; give "RA DEC RADIUS", the radius in '
            "arcsec"
        ) from error


def read_data(path, galaxy, aimless=AIMLESS, *, region=None, lsf=None):
    """Read a table of fluxes, or select spaxels of a galaxy in a cube."""
    if is_table(path):
        return LineMaps.from_table(path, target=galaxy)
    if galaxy is None:
        raise ValueError(aimless)
    return Spaxels.select(Cube.read(path), galaxy, region, lsf=lsf)


def is_table(path) -> bool:
    """Tell whether a file is a table of line fluxes, by its name or by its headers."""
    if path.suffix in TABLES:
        return True
    try:
        with fits.open(path) as hdus:
            kinds = {hdu.name: isinstance(hdu, fits.BinTableHDU) for hdu in hdus}
    except (OSError, TypeError):  # whoever reads it says what is wrong
        return False
    return any(kinds.values()) and not kinds.keys() & {"SCI", *SPECTRA}


def refuse_idle(path, **given):
    """Refuse options that do nothing for a table of fluxes.

    Raises
    ------
    ValueError
        If ``path`` is one, and any of them was given.
    """
    idle = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if idle and is_table(path):
        raise ValueError(
            f"{' and '.join(idle)} do nothing for a table of fluxes, of which all rows "
            f"are taken as they are; leave them out, or rows out of {path}"
        )


def can_draw() -> bool:
    """Tell whether there is what draws pictures; say what to install where not."""
    there = find_spec("matplotlib") is not None and find_spec("corner") is not None
    if not there:
        typer.echo("no pictures: install metalgrad[plot] for them", err=True)
    return there


def plotter(name):
    """Load a module that draws, into files only."""
    import matplotlib as mpl

    mpl.use("Agg")
    return import_module(f"metalgrad.{name}")


def save(figures, folder, prefix=""):
    """Write figures, or the figures of axes, by their names."""
    for name, figure in figures.items():
        figure = getattr(figure, "figure", figure)
        with NewFile(folder / f"{prefix}{name}.png") as fresh:
            figure.savefig(fresh, dpi=150, bbox_inches="tight")

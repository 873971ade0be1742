"""A fingerprint is the same in every process, and another for every other fit."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import metalgrad as mg
from metalgrad import dust
from metalgrad.fingerprint import fingerprint

ELSEWHERE = """
import metalgrad as mg
from metalgrad.fingerprint import fingerprint
print(fingerprint(model=mg.load_model("gradient"))["model"])
"""


def steep(wavelength):
    return 4.0 * dust.calzetti(wavelength)


class Spirals(mg.Flat):
    """A field of somebody's own, and no dataclass."""

    def __init__(self, arms):
        self.arms = arms


def curve(factor):
    return lambda wavelength: factor * dust.calzetti(wavelength)


def changed(calibration):
    """Return a calibration with one coefficient that is a little another."""
    name = calibration.ratios[0]
    relation = calibration.relations[name]
    first, *others = relation.coefficients
    relation = replace(relation, coefficients=(first + 1e-9, *others))
    return replace(calibration, relations=calibration.relations | {name: relation})


def variants():
    model = mg.load_model("gradient")
    give = partial(replace, model)
    return [
        model,
        mg.load_model("flat"),
        mg.load_model("gradient", calibration="nakajima22"),
        give(calibration=changed(model.calibration)),
        give(ratios=model.ratios[::-1]),
        give(rho=dist.Uniform(0.0, 0.9)),
        give(rho=dist.Uniform(0.1, 1.0)),
        give(rho=dist.Beta(1.0, 1.0)),
        give(reddening=dist.TruncatedNormal(0.0, 1.0, low=0.0)),
        give(reddening=dist.TruncatedNormal(0.0, 1.0, low=0.1)),
        give(field=replace(model.field, slope=dist.Normal(0.0, 0.3))),
        give(field=Spirals(2)),
        give(field=Spirals(3)),
        give(attenuation=steep),
        give(attenuation=curve(2.0)),
        give(attenuation=curve(3.0)),
        give(attenuation=partial(np.multiply, 2.0)),
        give(attenuation=partial(np.multiply, 3.0)),
    ]


def test_every_difference_between_models_is_seen():
    first, second = ([fingerprint(m=m)["m"] for m in variants()] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_other_processes_agree(seed):
    """Sets, and addresses in memory, differ from process to process."""
    said = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    here = fingerprint(model=mg.load_model("gradient"))["model"]
    assert said.stdout.strip() == here


def test_what_was_only_remembered_does_not_count():
    prior = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    before = fingerprint(prior=prior)
    assert prior.precision_matrix.shape == (2, 2)  # computed on demand, and kept
    assert "precision_matrix" in vars(prior)
    assert fingerprint(prior=prior) == before


@pytest.mark.parametrize(
    "other",
    [np.zeros((3, 2)), np.zeros(6), np.zeros((2, 3), np.float32), [[0.0] * 3] * 2],
)
def test_shape_and_type_of_arrays_count(other):
    assert fingerprint(x=np.zeros((2, 3))) != fingerprint(x=other)


def test_rounding_of_arrays_does_not_count():
    """Two processors need not add in the same order; a digit that is told does count.

    What cancels to nothing on one may be a hair off it on another.
    """
    given = np.array([[3.0, -2e-5, np.inf], [0.0, np.nan, 1e-3]])
    rounded = given * (1 + np.array([[1e-15], [-1e-15]]))
    rounded[1, 0] = 3e-17
    assert fingerprint(data=rounded) == fingerprint(data=given)
    for place, value in (((0, 1), -2.001e-5), ((0, 2), -np.inf), ((1, 1), 0.0)):
        other = given.copy()
        other[place] = value
        assert fingerprint(data=other) != fingerprint(data=given)
    assert fingerprint(data=2 * given) != fingerprint(data=given)


def test_numbers_are_told_as_they_are():
    told = fingerprint(seed=3, target_accept=0.9, psf=None)
    assert (told["seed"], told["target_accept"], told["psf"]) == ("3", "0.9", "None")
    assert {"metalgrad", "jax", "numpyro", "device"} <= set(told)

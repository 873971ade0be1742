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
from metalgrad.likelihood import LineLikelihood

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
    for place, value in (((0, 1), -4e-5), ((0, 2), -np.inf), ((1, 1), 0.0)):
        other = given.copy()
        other[place] = value
        assert fingerprint(data=other) != fingerprint(data=given)
    assert fingerprint(data=2 * given) != fingerprint(data=given)


def spectra(rng, count=60, names=("OII", "Hbeta", "OIII")):
    """Make data with a root as an eigendecomposition leaves it, of any sign."""
    size = len(names)
    axes = np.linalg.qr(rng.normal(size=(count, size, size)))[0]
    return LineLikelihood(
        lines=names,
        complexes=(names,),
        root=10 ** rng.normal(size=(count, size, 1)) * axes,
        white=20 * rng.normal(size=(count, size)),
        misfit=100 * rng.random((count, 1)),
        dof=np.full((count, 1), 80.0),
        log_norm=1000 * rng.random(count),
        position=rng.normal(size=(count, 2)),
    )


def test_data_are_the_same_on_another_number_of_cores():
    """Roots of precisions turn, and numbers differ by 1e-10 of the largest."""
    rng = np.random.default_rng(4)
    given = spectra(rng)
    told = fingerprint(data=given)
    for _ in range(30):
        turn = np.linalg.qr(rng.normal(size=given.root.shape))[0]
        changed = {"root": turn @ given.root}
        changed["white"] = np.einsum("sij,sj->si", turn, given.white)
        for name in ("root", "white", "misfit", "log_norm"):
            value = changed.get(name, getattr(given, name))
            noise = 1e-10 * np.abs(value).max() * rng.normal(size=value.shape)
            changed[name] = value + noise
        assert fingerprint(data=replace(given, **changed)) == told


@pytest.mark.parametrize("name", ["root", "white", "misfit", "dof", "position"])
def test_data_that_differ_are_told(name):
    """By a tenth of a standard deviation in one spaxel, and by two that are swapped."""
    given = spectra(np.random.default_rng(5))
    told = fingerprint(data=given)
    other = np.array(getattr(given, name), float)
    other[17] += 0.1
    assert fingerprint(data=replace(given, **{name: other})) != told
    if name != "dof":  # all alike
        swapped = getattr(given, name)[[1, 0, *range(2, 60)]]
        assert fingerprint(data=replace(given, **{name: swapped})) != told


def test_numbers_are_told_as_they_are():
    told = fingerprint(seed=3, target_accept=0.9, psf=None)
    assert (told["seed"], told["target_accept"], told["psf"]) == ("3", "0.9", "None")
    assert {"metalgrad", "jax", "numpyro", "device"} <= set(told)

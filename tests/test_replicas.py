"""Replicas: their data have the χ² that they should, and all else is the template's."""

from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chi2, halfnorm, kstest, norm

from metalgrad import replicas
from metalgrad.hierarchy import split
from metalgrad.inference import likelihood
from metalgrad.likelihood import LineLikelihood
from metalgrad.linemaps import LineMaps
from metalgrad.model import load_model

LINES = ("OII", "Hbeta", "OIII", "Halpha")
COMPLEXES = (("OII",), ("Hbeta", "OIII"), ("Halpha",))


def table():
    """Make line fluxes of five spaxels, off the centre; one lacks [O II]."""
    rng = np.random.default_rng(3)
    flux = 10 + rng.normal(size=(5, len(LINES)))
    error = rng.uniform(0.5, 2, flux.shape)
    error[1, 0] = np.inf
    return LineMaps(LINES, flux, error, rng.normal(1.0, 0.5, (5, 2)), "kpc")


def spectra():
    """Compressed spectra of five spaxels, one of which saw no [O II]."""
    rng = np.random.default_rng(2)
    root = np.eye(4) + np.zeros((5, 4, 4))
    root[:, 1, 2], root[1, 0, 0] = 0.3, 0.0
    dof = np.full((5, 3), 12.0)
    dof[1, 0] = 0.0
    return LineLikelihood(
        lines=LINES,
        complexes=COMPLEXES,
        root=root,
        white=10 + rng.normal(size=(5, 4)),
        misfit=np.zeros((5, 3)),
        dof=dof,
        log_norm=np.arange(5.0),
        position=rng.normal(1.0, 0.5, (5, 2)),
    )


def draw(data, count=150):
    """Return a hierarchy, and many replicas of data."""
    data = load_model("gradient-independent").prepare(likelihood(data))
    hierarchy = split(load_model("gradient-independent"), data)
    keys = jax.random.split(jax.random.key(11), count)
    found = [replicas.replicate(hierarchy, data.arrays, key) for key in keys]
    return data, *jax.tree.map(np.asarray, (data.arrays, found))


@pytest.fixture(scope="module", params=["table", "spectra"])
def drawn(request):
    with jax.enable_x64(new_val=True):
        return draw(table() if request.param == "table" else spectra())


def test_galaxies_too_bright_are_passed_over():
    data = load_model("gradient-independent").prepare(likelihood(table()))
    hierarchy = split(load_model("gradient-independent"), data)
    for number in range(5):
        key = jax.random.key(number)
        some = partial(replicas.replicate_within, hierarchy, data.arrays, key)
        first, passed = some(np.inf)
        assert passed == 0
        height = float(np.abs(first.arrays["white"]).max())
        assert some(height)[1] == 0
        fainter, passed = some(0.99 * height)
        assert passed > 0
        assert np.abs(fainter.arrays["white"]).max() <= 0.99 * height
    with pytest.raises(ValueError, match=r"1000 galaxies.*S/N 0\.01; raise brightest"):
        some(0.01)


def test_deviance_is_chi_square(drawn):
    """Of all channels less the continuum's terms, at the true fluxes and noise."""
    data, _, found = drawn
    deviance = []
    for truth, _ in found:
        scale = truth.get("noise_scale", np.ones(len(data.complexes)))
        norms = data.log_norm.sum() - (data.dof @ np.log(scale)).sum()
        deviance.append(-2 * (truth["log_likelihood"] - norms))
    assert kstest(deviance, chi2(data.dof.sum()).cdf).pvalue > 0.01


def test_misfit_is_what_fluxes_leave(drawn):
    data, _, found = drawn
    told = np.any(data.root != 0, axis=-1)
    for number, names in enumerate(data.complexes):
        mine = [line in names for line in data.lines]
        left = data.dof[:, number] - told[:, mine].sum(axis=1)
        scaled = [
            arrays["misfit"][:, number] / truth["noise_scale"][number] ** 2
            if data.has_channels
            else arrays["misfit"][:, number]
            for truth, arrays in found
        ]
        for spaxel, values in enumerate(np.array(scaled).T):
            if left[spaxel] == 0:
                assert_array_equal(values, 0)
            else:
                assert kstest(values, chi2(left[spaxel]).cdf).pvalue > 1e-3


def test_parameters_are_drawn_from_the_card(drawn):
    """The numbers are those of models/gradient-independent.toml."""
    data, _, found = drawn
    values = {name: [truth[name] for truth, _ in found] for name in found[0].truth}
    laws = {
        "level": norm(8, 0.5), "slope": norm(0, 0.2), "scatter": halfnorm(0, 0.15),
        "reddening": halfnorm(0, 0.3), "clumpiness": halfnorm(0, 0.5),
    }  # fmt: skip
    for name, law in laws.items():
        assert kstest(values[name], law.cdf).pvalue > 1e-3
    assert kstest(values["rho"], "uniform").pvalue > 1e-3
    central = np.subtract(values["level"], data.pivot * np.array(values["slope"]))
    assert_allclose(values["central"], central)


def test_all_but_the_data_is_the_templates(drawn):
    data, given, found = drawn
    for _, arrays in found[:3]:
        changed = {n for n, v in arrays.items() if not np.array_equal(v, given[n])}
        expected = {"white", "told"} | ({"misfit"} if data.has_channels else set())
        assert changed == expected
        unmeasured = ~np.any(data.root != 0, axis=-1)
        assert_array_equal(arrays["white"][unmeasured], 0)


def test_noise_that_is_wider_leaves_more():
    one, many = spectra(), 400
    data = replace(
        one,
        **{
            name: np.repeat(getattr(one, name)[:1], many, axis=0)
            for name in ("root", "white", "misfit", "dof", "log_norm", "position")
        },
    )
    scale = np.array([0.5, 1.0, 3.0])
    misfit = replicas.draw_misfit(data, scale, jax.random.key(1))
    left = np.array([11, 10, 11])  # 12 channels, less the lines
    error = scale**2 * np.sqrt(2 * left / many)
    assert np.all(np.abs(np.mean(misfit, axis=0) - scale**2 * left) < 4 * error)


def test_a_template_without_channels_enough_is_refused():
    data = spectra()
    replicas.check_template(data)
    dof = data.dof.copy()
    dof[3, 1] = 1.0
    with pytest.raises(ValueError, match=r"spaxel 3 has fewer channels .* Hbeta\+OIII"):
        replicas.check_template(replace(data, dof=dof))

import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

from metalgrad import bench_cases
from metalgrad.lsf import prism
from metalgrad.windows import find_complexes

pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.fixture(scope="module")
def case():
    return bench_cases.table(3, seed=1)


def test_the_same_seed_gives_the_same_data(case):
    again = bench_cases.table(3, seed=1)
    np.testing.assert_array_equal(again.spectra.flux, case.spectra.flux)
    other = bench_cases.table(3, seed=2)
    assert not np.allclose(other.spectra.flux, case.spectra.flux)


def test_every_line_has_a_ratio_so_that_naive_and_compressed_have_the_same(case):
    assert case.prepared.lines == case.data.lines


def windows():
    return find_complexes(bench_cases.EDGES, bench_cases.REDSHIFT, prism())


def remains(case, flux, window):
    """Spectra without lines of ``flux``, and the terms of the continuum."""
    design, basis = bench_cases._templates(window)
    own = [case.prepared.lines.index(name) for name in window.lines]
    return case.spectra.flux[:, window.pixels] - flux[:, own] @ design, basis


def best_continua(case, flux):
    """Coefficients of the continuum by NumPy's least squares, (spaxel, term)."""
    for window in windows():
        rest, basis = remains(case, flux, window)
        yield np.linalg.lstsq(basis.T, rest.T)[0].T


def least_squares(case, flux):
    """χ² of spectra with the best continuum under lines of ``flux``, by NumPy."""
    total = np.zeros(len(flux))
    for window, best in zip(windows(), best_continua(case, flux), strict=True):
        rest, basis = remains(case, flux, window)
        total += ((rest - best @ basis) ** 2).sum(axis=1) / bench_cases.ERROR**2
    return total


def test_compression_loses_nothing_that_channels_say(case):
    rng, (best, error) = np.random.default_rng(1), case.data.best_flux()
    ones = jnp.ones(len(case.prepared.complexes))
    fluxes = best + 3 * error * rng.normal(size=best.shape), best
    told, seen = (
        np.subtract(*(function(flux) for flux in fluxes))
        for function in (
            lambda flux: (
                -2 * np.asarray(case.prepared.log_likelihood(jnp.asarray(flux), ones))
            ),
            lambda flux: least_squares(case, flux),
        )
    )
    np.testing.assert_allclose(told, seen, rtol=1e-4)
    assert (seen > 10).all()


def test_the_naive_model_is_of_the_same_posterior(case):
    """At the best continuum both densities differ by a constant."""
    apart = []
    for seed in range(3):
        told = handlers.substitute(case.compressed, bench_cases.TRUTH)
        trace = handlers.trace(handlers.seed(told, seed)).get_trace()
        drawn = {n: s for n, s in trace.items() if s["type"] == "sample"}
        values = {n: s["value"] for n, s in drawn.items() if not s["is_observed"]}
        values["noise_scale"] = jnp.ones(len(case.prepared.complexes))
        flux = np.asarray(trace["line_flux"]["value"], float)
        best = {
            f"continuum_{number}": part / bench_cases.ERROR
            for number, part in enumerate(best_continua(case, flux))
        }
        naive = log_density(case.naive, (), {}, values | best)[0]
        apart.append(float(naive - log_density(case.compressed, (), {}, values)[0]))
    np.testing.assert_allclose(apart, apart[0], atol=1e-3)

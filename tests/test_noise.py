"""Correlated noise of known kernels, brute force, and the pipeline's own cube."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import toeplitz
from scipy.ndimage import convolve1d, gaussian_filter
from scipy.stats import norm

from metalgrad.cubes import FLUX_DENSITY, Cube
from metalgrad.likelihood import LineLikelihood
from metalgrad.lsf import prism
from metalgrad.noise import NoiseCorrelation, measure_correlation, temper
from metalgrad.spaxels import Spaxels

SPATIAL, SPECTRAL = (0.5, 1.0, 0.4), (0.3, 0.9, 1.0, 0.4)
WHITE = (1.0,)


def autocorrelation(kernel, reach):
    """Exact correlation at offsets -reach ... reach of white noise so convolved."""
    full = np.convolve(kernel, kernel[::-1]) / np.dot(kernel, kernel)
    full = np.pad(full, reach)
    return full[len(full) // 2 - reach : len(full) // 2 + reach + 1]


def draw(rng, shape, spatial, spectral):
    """Draw noise of unit variance, (wave, y, x)."""
    noise = rng.normal(size=[n + 8 for n in shape])
    for axis, kernel in enumerate((spectral, spatial, spatial)):
        noise = convolve1d(noise, kernel / np.linalg.norm(kernel), axis, mode="wrap")
    return noise[4:-4, 4:-4, 4:-4]


def observe(seed, side, channels=350, spatial=SPATIAL, spectral=SPECTRAL, scale=1.0):
    """Steep continua and uneven errors, and lines that the model knows."""
    rng = np.random.default_rng(seed)
    noise = draw(rng, (channels, side, side), spatial, spectral)
    edges = 0.72 + 0.011 * np.arange(channels + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    error = 7 * np.exp(0.3 * np.sin(9 * middle)) * rng.uniform(0.8, 1.2, (side**2, 1))
    flux = rng.uniform(0, 300, (side**2, 1)) * (middle / 2) ** -1.5
    for rest in (0.3729, 0.48627, 0.50082, 0.65646):
        centre = rest * 6.3
        flux = flux + 900 * norm.pdf(middle, centre, prism().sigma(centre)) / 40
    index = np.argwhere(np.ones((side, side), dtype=bool)) + np.array([3, 5])
    return Spaxels(
        flux=flux + scale * error * noise.reshape(channels, -1).T,
        error=error,
        edges=edges,
        position=0.1 * index,
        index=index,
        redshift=5.3,
        shape=(side + 3, side + 5),
    )


def spoil(spaxels, seed):
    """Lose voxels and spaxels, add spikes, and a line that is in no table."""
    rng = np.random.default_rng(seed)
    flux, error = spaxels.flux.copy(), spaxels.error.copy()
    middle = (spaxels.edges[1:] + spaxels.edges[:-1]) / 2
    flux += 4000 * norm.pdf(middle, 1.5, 0.02) / norm.pdf(0, 0, 0.02)
    for spaxel in range(0, len(flux), 3):
        start = rng.integers(5, len(middle) - 5)
        flux[spaxel, start : start + 3] += 2000
    error[rng.uniform(size=error.shape) < 0.05] = np.inf
    error[7] = np.inf
    flux = np.where(np.isfinite(error), flux, 0.0)
    kept = rng.uniform(size=len(flux)) < 0.8
    kept[7] = True
    return replace(
        spaxels,
        flux=flux[kept],
        error=error[kept],
        position=spaxels.position[kept],
        index=spaxels.index[kept],
    )


# ------------------------------------------------------------------------ measuring


@pytest.mark.parametrize("spoilt", [False, True], ids=["whole", "spoilt"])
def test_known_kernels_are_found(spoilt):
    spaxels = observe(1, 13, scale=1.7)
    found = measure_correlation(spoil(spaxels, 1) if spoilt else spaxels)
    axis = autocorrelation(SPATIAL, 4)
    assert found.spatial.shape == found.spatial_error.shape == (9, 9)
    # faint correlations may be drawn to 0, strong ones may not
    assert_allclose(found.spatial, np.outer(axis, axis), atol=0.1)
    assert_allclose(found.spatial[4, 3:6], axis[3:6], atol=0.02)
    assert_allclose(found.spatial[3:6, 4], axis[3:6], atol=0.02)
    assert_allclose(found.spatial, found.spatial[::-1, ::-1], atol=1e-12)
    expected = autocorrelation(SPECTRAL, 5)[5:]
    assert_allclose(found.spectral, expected, atol=0.06)
    assert_allclose(found.spectral[:2], expected[:2], atol=0.02)
    assert_allclose(np.median(found.noise_scale), 1.7, rtol=0.03)
    assert found.spatial_inflation() == pytest.approx(axis.sum() ** 2, rel=0.12)


def test_standard_errors_are_those_of_repeated_measurements():
    found = [measure_correlation(observe(seed, 5)) for seed in range(60)]
    spread = np.std([f.spectral[1] for f in found])
    assert found[0].spectral_error[1] == pytest.approx(spread, rel=0.5)
    spread = np.std([f.spatial[4, 5] for f in found])
    assert found[0].spatial_error[4, 5] == pytest.approx(spread, rel=0.5)


@pytest.mark.parametrize(("side", "tolerance"), [(1, 0.02), (3, 0.05), (12, 0.02)])
def test_white_noise_is_not_inflated(side, tolerance):
    found = [
        measure_correlation(observe(seed, side, spatial=WHITE, spectral=WHITE))
        for seed in range(8)
    ]
    for inflations in (
        [f.spatial_inflation() for f in found],
        [f.line_inflation(1.3) for f in found],
        [f.line_inflation(1.3, 2.0) for f in found],
    ):
        assert np.mean(inflations) == pytest.approx(1.0, abs=tolerance)


def test_one_spaxel_knows_no_neighbours():
    found = measure_correlation(observe(2, 1))
    assert found.spatial_inflation() == 1.0
    assert np.isinf(found.spatial_error[4, 5])
    assert_allclose(found.spectral[1], autocorrelation(SPECTRAL, 1)[2], atol=0.2)


def test_without_a_good_channel_nothing_is_known():
    spaxels = observe(2, 2)
    lost = replace(spaxels, error=np.full_like(spaxels.error, np.inf))
    found = measure_correlation(lost)
    assert found.spatial_inflation() == found.line_inflation(1.0, 2.0) == 1.0
    assert np.isinf(found.spectral_error[1:]).all()


def test_correlation_may_change_along_the_spectrum():
    spaxels = observe(4, 8, 600, spectral=WHITE)
    red = observe(5, 8, 600, spectral=SPECTRAL)
    flux = np.where(np.arange(600) < 300, spaxels.flux, red.flux)
    error = np.where(np.arange(600) < 300, spaxels.error, red.error)
    found = measure_correlation(replace(spaxels, flux=flux, error=error))
    expected = autocorrelation(SPECTRAL, 1)[2]
    assert_allclose(found.spectral_at(2.0)[1], 0.0, atol=0.1)
    assert_allclose(found.spectral_at(6.0)[1], expected, atol=0.1)
    assert found.line_inflation(1.5, 2.0) < found.line_inflation(1.5, 6.0)


def test_the_pipelines_own_noise(shared):
    """PROVENANCE: neighbours 0.58 and 0.56 in space, 0.74 and 0.37 in wavelength."""
    path = shared / "pipeline_s3d" / "synthetic_prism_s3d_cutout.fits.gz"
    cube = Cube.read(path)
    good = cube.good.reshape(len(cube.good), -1).T
    flux, error = (
        value.to_value(FLUX_DENSITY).reshape(len(cube.good), -1).T
        for value in (cube.flux, cube.error)
    )
    index = np.argwhere(np.ones(cube.shape, dtype=bool))
    spaxels = Spaxels(
        flux=np.where(good, flux, 0.0).astype(float),
        error=np.where(good, error, np.inf).astype(float),
        edges=cube.edges.to_value("um").astype(float),
        position=0.05 * (index - 15.0),
        index=index,
        redshift=7.007,  # its lines at 3.895 and 4.010 um as [O III] and Hβ
        shape=cube.shape,
    )
    found = measure_correlation(spaxels)
    assert found.spatial[4, 5] == pytest.approx(0.58, abs=0.04)
    assert found.spatial[5, 4] == pytest.approx(0.58, abs=0.04)
    # bins of 5 nm are finer than the detector's in the blue, and as wide in the red
    assert_allclose(found.spectral_at(2.6)[1:3], [0.74, 0.37], atol=0.04)
    assert_allclose(found.spectral_at(4.9)[1:3], [0.48, 0.02], atol=0.04)
    assert_allclose(np.median(found.noise_scale), 1.0, atol=0.03)


# ----------------------------------------------------------------------- inflations


def known(spatial, spectral):
    axis = autocorrelation(spatial, 4)
    return NoiseCorrelation(np.outer(axis, axis), autocorrelation(spectral, 5)[5:])


@pytest.mark.parametrize("sigma", [0.9, 2.0])
def test_line_inflation_is_that_of_many_fits(sigma):
    rng = np.random.default_rng(3)
    channel = np.arange(31)
    profile = np.diff(norm.cdf(np.arange(32) - 0.5, 15, sigma))
    covariance = toeplitz(np.pad(autocorrelation(SPECTRAL, 5)[5:], (0, 25)))
    noise = rng.multivariate_normal(np.zeros(len(channel)), covariance, 40_000)
    flux = np.linalg.lstsq(profile[:, None], noise.T, rcond=None)[0][0]
    expected = np.var(flux) * (profile @ profile)
    found = known(WHITE, SPECTRAL).line_inflation(sigma)
    assert found == pytest.approx(expected, rel=0.02)


def test_spatial_inflation_is_that_of_many_means():
    rng = np.random.default_rng(4)
    noise = draw(rng, (40_000, 7, 4), SPATIAL, WHITE)
    index = np.argwhere(np.ones((7, 4), dtype=bool))
    expected = np.var(noise.mean(axis=(1, 2))) * 28
    correlation = known(SPATIAL, WHITE)
    assert correlation.spatial_inflation(index=index) == pytest.approx(
        expected, rel=0.02
    )
    whole = autocorrelation(SPATIAL, 4).sum() ** 2
    assert correlation.spatial_inflation() == pytest.approx(whole, rel=1e-12)
    assert known(WHITE, WHITE).spatial_inflation(index=index) == 1.0


def test_smoothing_spreads_the_noise():
    rng = np.random.default_rng(5)
    noise = draw(rng, (1, 1500, 1500), SPATIAL, WHITE)[0]
    smooth = gaussian_filter(noise, 1.1, mode="wrap")
    expected = autocorrelation(SPATIAL, 4).sum() ** 2 / np.var(smooth)
    found = known(SPATIAL, WHITE).spatial_inflation(1.1)
    assert found == pytest.approx(expected, rel=0.02)


# -------------------------------------------------------------------------- tempering


def fit_single_line(spaxels, pixels, profile):
    """Fit one line to the channels ``pixels``, whose continuum is known to be 0."""
    weight = spaxels.error[:, pixels] ** -2.0
    flux = spaxels.flux[:, pixels]
    precision = weight @ profile**2
    white = (weight * flux) @ profile / np.sqrt(precision)
    misfit = (weight * flux**2).sum(axis=1) - white**2
    dof = np.full(len(flux), float(flux.shape[1]))
    return LineLikelihood(
        lines=("Hbeta",),
        complexes=(("Hbeta",),),
        root=np.sqrt(precision)[:, None, None],
        white=white[:, None],
        misfit=misfit[:, None],
        dof=dof[:, None],
        log_norm=np.log(weight).sum(axis=1) / 2 - dof * np.log(2 * np.pi) / 2,
        position=spaxels.position,
    )


def pull(seed):
    """Return how many tempered and bare sd the mean flux of a field is off."""
    side, channels, sigma, truth = 9, 160, 1.4, 11.0
    spaxels = observe(seed, side, channels)
    rng = np.random.default_rng(1000 + seed)
    noise = draw(rng, (channels, side, side), SPATIAL, SPECTRAL)
    profile = np.diff(norm.cdf(np.arange(26) - 0.5, 12.2, sigma))
    flux = spaxels.error * noise.reshape(channels, -1).T
    spaxels = replace(spaxels, flux=flux)
    correlation = measure_correlation(spaxels)
    pixels = slice(60, 85)
    flux = flux.copy()
    flux[:, pixels] += truth * profile
    data = fit_single_line(replace(spaxels, flux=flux), pixels, profile)
    factor = correlation.line_inflation(sigma) * correlation.spatial_inflation(
        index=spaxels.index
    )
    pulls = []
    for likelihood in (temper(data, factor), data):
        root, white = likelihood.root[:, 0, 0], likelihood.white[:, 0]
        mean, error = (root @ white) / (root @ root), (root @ root) ** -0.5
        pulls.append((mean - truth) / error)
    return pulls


@pytest.mark.slow
def test_the_mean_of_a_field_is_covered():
    tempered, bare = np.array([pull(seed) for seed in range(200)]).T
    # the sd of 200 normal numbers is known to 5 %
    assert np.std(tempered) == pytest.approx(1.0, abs=0.15)
    assert np.mean(tempered) == pytest.approx(0.0, abs=0.25)
    assert np.std(bare) > 2.5


def two_complexes(seed, spaxels=3):
    rng = np.random.default_rng(seed)
    root = np.zeros((spaxels, 3, 3))
    root[:, :2, :2] = rng.normal(0, 1, (spaxels, 2, 2)) + 2 * np.eye(2)
    root[:, 2, 2] = rng.uniform(1, 2, spaxels)
    root[0, 2, 2] = 0.0  # a line that was not seen
    return LineLikelihood(
        lines=("Hbeta", "OIII", "OII"),
        complexes=(("Hbeta", "OIII"), ("OII",)),
        root=root,
        white=rng.normal(0, 3, (spaxels, 3)) * root.any(axis=2),
        misfit=rng.uniform(5, 20, (spaxels, 2)),
        dof=rng.integers(8, 20, (spaxels, 2)).astype(float),
        log_norm=rng.normal(size=spaxels),
        position=rng.normal(size=(spaxels, 2)),
    )


def test_best_fluxes_stay_and_their_errors_grow():
    data = two_complexes(1)
    factor = np.array([2.3, 5.1])
    (flux, error), (same, wider) = data.best_flux(), temper(data, factor).best_flux()
    assert_allclose(same, flux, rtol=1e-10)
    assert_allclose(wider, error * np.sqrt(factor[[0, 0, 1]]), rtol=1e-10)


def test_noise_scale_is_told_as_before():
    """With free fluxes integrated out (on a grid), its likelihood does not change."""
    data = two_complexes(2)
    data = replace(data.keep(("OII",)), log_norm=data.log_norm)
    wide = temper(data, 4.4)
    with jax.enable_x64(new_val=True):
        grid = jnp.linspace(-400.0, 400.0, 160_001)[1:]
        for scale in (0.7, 1.6):
            evidence = [
                jax.scipy.special.logsumexp(
                    jax.vmap(
                        lambda flux, likelihood=likelihood, scale=scale: (
                            likelihood.log_likelihood(
                                jnp.full((3, 1), flux), jnp.array([scale])
                            )
                        )
                    )(grid),
                    axis=0,
                )[1:]
                for likelihood in (data, wide)
            ]
            assert_allclose(*evidence, rtol=1e-8)


@pytest.mark.parametrize("factor", [0.0, -1.0, np.nan, np.inf])
def test_a_senseless_factor_is_refused(factor):
    with pytest.raises(ValueError, match="is not positive and finite in every complex"):
        temper(two_complexes(1), factor)

"""Compressed spectra against whole ones, and against mocks made by Astropy."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.modeling.models import Gaussian1D
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import null_space, toeplitz
from scipy.stats import multivariate_normal

from metalgrad import cards
from metalgrad.compression import compress, correlated, drop_outliers
from metalgrad.cubes import Cube
from metalgrad.lsf import constant, prism
from metalgrad.noise import NoiseCorrelation, measure_correlation, temper
from metalgrad.spaxels import Spaxels
from metalgrad.targets import Target
from metalgrad.tuning import Tuning
from metalgrad.windows import cut, find_complexes, templates

PATH = Path(__file__).parents[1] / "benchmarks" / "independent.py"
_spec = importlib.util.spec_from_file_location("independent", PATH)
independent = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(independent)

LIGHT = 299_792.458  # km/s


def prism_edges(low=0.7, high=5.2):
    """Bins of the detector's own size."""
    table = cards.table("nirspec/prism_resolution.ecsv")
    edges = [low]
    while edges[-1] < high:
        edges.append(
            edges[-1] + np.interp(edges[-1], table["wavelength"], table["dispersion"])
        )
    return np.array(edges)


def make_spaxels(flux, error, redshift, edges=None):
    count = len(flux)
    rng = np.random.default_rng(count)
    return Spaxels(
        flux=np.where(np.isfinite(error), flux, 0.0),
        error=error,
        edges=prism_edges() if edges is None else edges,
        position=rng.normal(0.3, 1.0, (count, 2)),
        index=np.stack([np.arange(count), np.arange(count) + 3], axis=1),
        redshift=redshift,
        shape=(count, count + 3),
    )


def noise_like_a_spectrum(seed, redshift, count=3):
    """Steep continua, errors that vary, and lines of any strength or sign."""
    rng, edges = np.random.default_rng(seed), prism_edges()
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    level = 10 ** rng.uniform(0, 4, (count, 1))
    flux = level * (middle / 2) ** rng.uniform(-2, 1, (count, 1))
    error = level * 10 ** rng.uniform(-2, 0) * rng.uniform(0.5, 2, flux.shape)
    flux += rng.normal(0, 1, flux.shape) * error
    for rest in (0.3729, 0.38699, 0.43417, 0.48627, 0.50082, 0.65646):
        line = Gaussian1D(1.0, rest * (1 + redshift), 0.018)(middle) / width
        flux += level * rng.normal(1, 2, (count, 1)) * line
    return make_spaxels(flux, error, redshift)


def spoil(spaxels, seed):
    """Lose channels at random, a whole complex of one spaxel, most of another's."""
    rng = np.random.default_rng(seed)
    error = spaxels.error.copy()
    error[rng.uniform(size=error.shape) < 0.1] = np.inf
    windows = find_complexes(spaxels.edges, spaxels.redshift, prism())
    error[1, windows[0].pixels] = np.inf
    start = windows[-1].pixels.start
    error[2, start + 2 : windows[-1].pixels.stop] = np.inf
    return replace(
        spaxels, error=error, flux=np.where(np.isfinite(error), spaxels.flux, 0)
    )


def draw_tuning(spaxels, seed):
    rng = np.random.default_rng(seed)
    count = len(find_complexes(spaxels.edges, spaxels.redshift, prism()))
    return Tuning(
        velocity=rng.normal(0, 120, len(spaxels)),
        velocity_error=rng.uniform(10, 60, len(spaxels)),
        offset=rng.normal(0, 200, count),
        offset_error=rng.uniform(5, 50, count),
        scale=rng.uniform(0.6, 1.1, count),
        scale_error=rng.uniform(0.01, 0.1, count),
    )


def correlate(part, correlation):
    """Correlation matrix of a complex's channels, that of its middle."""
    count = part.weight.shape[1]
    if correlation is None:
        return np.eye(count)
    edges = prism_edges()[[part.window.pixels.start, part.window.pixels.stop]]
    lags = correlation.spectral_at(edges.mean())
    return toeplitz(np.pad(lags, (0, count))[:count])


def dense_complex(part, tuning, c, spaxel, matrix):
    """Return the density of one complex's channels, from a dense covariance."""
    good = part.weight[spaxel] > 0
    spectrum, basis = part.flux[spaxel, good], part.basis[:, good]
    if good.sum() <= len(basis):
        return lambda flux, scale: 0.0  # the continuum takes it all
    velocity, width = tuning.velocity[spaxel] + tuning.offset[c], tuning.scale[c]

    def design(velocity, width):
        return part.design(np.array(velocity), np.array(width))[:, good]

    error = part.weight[spaxel, good] ** -0.5
    noise = matrix[good][:, good] * error * error[:, None]
    sharp = np.linalg.inv(np.linalg.cholesky(noise))
    rows = np.concatenate([design(velocity, width), basis])
    solution = np.linalg.lstsq(sharp @ rows.T, sharp @ spectrum, rcond=1e-12)[0]
    best = solution[: len(part.window.lines)]
    slopes = np.stack(
        [
            best @ (design(velocity + 1, width) - design(velocity - 1, width)) / 2,
            best
            @ (design(velocity, width + 1e-3) - design(velocity, width - 1e-3))
            * 500,
        ]
    )
    shift = np.hypot(tuning.velocity_error[spaxel], tuning.offset_error[c])
    spread = [shift, tuning.scale_error[c]]
    covariance = noise + slopes.T @ np.diag(np.square(spread)) @ slopes
    # a flat continuum is integrated out: what is left is the complement of its span
    beside = null_space(basis).T
    jacobian = -0.5 * np.linalg.slogdet(basis @ basis.T)[1]
    inner = beside @ covariance @ beside.T

    def log_density(flux, scale):
        residual = beside @ (spectrum - flux @ design(velocity, width))
        normal = multivariate_normal(cov=scale**2 * inner)
        return normal.logpdf(residual) + jacobian

    return log_density


SPECTRAL = np.array([1.0, 0.74, 0.37, 0.10, 0.03])
CORRELATIONS = {
    "white": None,
    "correlated": NoiseCorrelation(np.ones((1, 1)), SPECTRAL),
    "changing": NoiseCorrelation(
        np.ones((1, 1)),
        SPECTRAL,
        wavelength=np.array([0.8, 2.0, 5.0]),
        local=np.array([SPECTRAL, [1.0, -0.3, 0.0, 0.0, 0.0], [1.0, 0.4, 0, 0, 0.1]]),
    ),
}


@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize("spoilt", [False, True], ids=["whole", "spoilt"])
@pytest.mark.parametrize("redshift", [1.07, 2.3, 4.9, 6.4, 7.88])
def test_compressed_density_is_that_of_the_spectrum(redshift, spoilt, correlation):
    correlation = CORRELATIONS[correlation]
    seed = int(100 * redshift)
    spaxels = noise_like_a_spectrum(seed, redshift)
    spaxels = spoil(spaxels, seed) if spoilt else spaxels
    tuning = draw_tuning(spaxels, seed)
    data, same = compress(spaxels, tuning=tuning, correlation=correlation)
    assert same is tuning
    windows = find_complexes(spaxels.edges, redshift, prism())
    parts = [cut(spaxels, window, prism()) for window in windows]
    rng = np.random.default_rng(seed)
    best, error = data.best_flux()
    step = np.where(np.isfinite(error), error, 1.0)
    for _ in range(2):
        flux = best + rng.normal(0, 2, best.shape) * step
        scale = rng.lognormal(0, 0.4, len(windows))
        with jax.enable_x64(new_val=True):
            found = data.log_likelihood(jnp.array(flux), jnp.array(scale))
        expected = np.zeros(len(spaxels))
        for spaxel in range(len(spaxels)):
            start = 0
            for c, part in enumerate(parts):
                own = slice(start, start := start + len(part.window.lines))
                matrix = correlate(part, correlation)
                density = dense_complex(part, tuning, c, spaxel, matrix)
                expected[spaxel] += density(flux[spaxel, own], scale[c])
        assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_a_lost_complex_says_nothing(correlation):
    spaxels = spoil(noise_like_a_spectrum(3, 4.9), 3)
    correlation = CORRELATIONS[correlation]
    tuning = draw_tuning(spaxels, 3)
    data, _ = compress(spaxels, tuning=tuning, correlation=correlation)
    lost = data.row_complex == 0
    assert data.dof[1, 0] == data.misfit[1, 0] == 0
    assert not data.root[1, lost].any()
    flux, error = data.best_flux()
    assert np.isinf(error[1, lost]).all()
    assert not flux[1, lost].any()
    # two channels under a straight line
    last = data.row_complex == len(data.complexes) - 1
    assert np.isinf(error[2, last]).all()
    assert data.dof[2, -1] == 0


# ------------------------------------------------------------------ correlated noise

LINES = ("OII", "Hbeta", "OIII", "Halpha")


def observe(path, seed, radius=0.35, **settings):
    """A mock of benchmarks/independent.py around where it is."""
    settings = {"wave": (2.3025, 5.2025, 581), "width": 1.0} | settings
    truth = independent.mock(path, seed=seed, slope=-0.05, **settings)
    target = Target(
        name="mock",
        position=SkyCoord(truth["ra"], truth["dec"], unit="deg"),
        redshift=truth["redshift"],
        kpc_per_arcsec=truth["kpc_per_arcsec"],
        radius=radius,
    )
    return Spaxels.select(Cube.read(path), target)


@pytest.fixture(scope="module")
def mocks(tmp_path_factory):
    """Mocks with the noise of a drizzled cube, and the same galaxies without."""
    path = tmp_path_factory.mktemp("mocks") / "mock.fits"
    calm = {"noise": 0, "flagged": 0}
    return [(observe(path, s), observe(path, s, **calm)) for s in (1, 2, 3)]


def best(data):
    """Fluxes and errors of the main lines, (spaxel, line)."""
    columns = [data.lines.index(name) for name in LINES]
    return [values[:, columns] for values in data.best_flux()]


def reduced_misfit(data):
    lines = np.array([len(names) for names in data.complexes])
    return data.misfit.sum(axis=0) / (data.dof - lines).sum(axis=0)


@pytest.mark.slow
def test_errors_of_correlated_noise_are_honest(mocks):
    """Pulls of single spaxels against the same galaxy observed without noise."""
    pulls, bare, misfit = [], [], []
    for spaxels, calm in mocks:
        truth = best(compress(calm)[0])[0]
        correlation = measure_correlation(spaxels)
        cleaned, _ = drop_outliers(spaxels, correlation=correlation)
        data, _ = compress(cleaned, correlation=correlation)
        misfit.append(reduced_misfit(data))
        for found, likelihood in ((pulls, data), (bare, compress(spaxels)[0])):
            flux, error = best(likelihood)
            found.append((flux - truth) / error)
    # as good as 100 independent spaxels: the sd of their pulls is known to 7 %
    assert_allclose(np.std(np.concatenate(pulls), axis=0), 1.0, atol=0.2)
    assert np.std(np.concatenate(pulls)) == pytest.approx(1.0, abs=0.1)
    assert np.all(np.std(np.concatenate(bare), axis=0) > 1.4)
    # velocity and width have been fitted too
    assert_allclose(np.mean(misfit, axis=0), 0.97, atol=0.06)


def test_one_call_does_it_all(mocks):
    spaxels, _ = mocks[0]
    data, tuning, correlation = correlated(spaxels)
    cleaned, _ = drop_outliers(spaxels, correlation=correlation)
    lost = np.isinf(cleaned.error) & np.isfinite(spaxels.error)
    # 2 in 10000 voxels of some 250 channels
    assert 1 <= lost.sum() <= 20
    assert not cleaned.flux[lost].any()
    expected, same = compress(cleaned, correlation=correlation)
    assert_array_equal(same.velocity, tuning.velocity)
    factor = correlation.spatial_inflation(index=spaxels.index)
    assert factor > 3
    assert_allclose(best(data)[1], best(expected)[1] * np.sqrt(factor))
    assert_allclose(data.root, temper(expected, factor).root)
    assert_allclose(reduced_misfit(data), 1.0, atol=0.12)


def test_sky_around_a_galaxy_changes_no_line(tmp_path):
    """Nor how well lines and stars are known: sums are of what is lit."""
    settings = {"width": 2.6, "flagged": 0, "outliers": 0}
    near, far = (observe(tmp_path / "mock.fits", 4, r, **settings) for r in (0.5, 1.2))
    assert len(far) > 5 * len(near)
    (small, tuning), (wide, other) = (
        correlated(spaxels)[:2] for spaxels in (near, far)
    )
    ratio = other.scale_error / tuning.scale_error
    assert_allclose(ratio, 1.0, atol=0.25)
    assert np.all(np.abs(other.scale - tuning.scale) < tuning.scale_error)
    assert np.all(np.abs(other.stars - tuning.stars) < 0.5)
    spread = [np.linalg.det(one.stars_root[0]) for one in (tuning, other)]
    assert_allclose(spread[1], spread[0], rtol=0.25)
    inside = [
        np.flatnonzero((far.index == place).all(axis=1))[0] for place in near.index
    ]
    (flux, error), (same, _) = best(small), (values[inside] for values in best(wide))
    assert np.max(np.abs(same - flux).mean(axis=0) / error.mean(axis=0)) < 0.2


def same(one, other):
    for name in ("root", "white", "misfit", "dof", "log_norm"):
        assert_array_equal(getattr(one, name), getattr(other, name))


def test_white_correlation_changes_nothing():
    spaxels = noise_like_a_spectrum(5, 4.9, 6)
    data, tuning = compress(spaxels)
    white = NoiseCorrelation(np.ones((1, 1)), np.eye(1, 6)[0])
    found, others = compress(spaxels, correlation=white)
    same(found, data)
    assert_array_equal(others.velocity_error, tuning.velocity_error)


def test_white_noise_is_left_as_it_is(tmp_path):
    calm = {"spatial": (), "spectral": (), "outliers": 0}
    spaxels = observe(tmp_path / "mock.fits", 1, **calm)
    data, _, correlation = correlated(spaxels)
    assert correlation.spatial_inflation(index=spaxels.index) < 1.02
    assert_allclose(best(data)[1], best(compress(spaxels)[0])[1], rtol=0.03)


def test_too_few_channels_tell_nothing():
    """Two windows of lines and hardly a channel beside them."""
    whole = noise_like_a_spectrum(6, 4.9, 4)
    pixels = find_complexes(whole.edges, 4.9, prism(), ("Hbeta", "OIII"))[0].pixels
    near = slice(pixels.start - 3, pixels.stop + 3)
    edges = whole.edges[near.start : near.stop + 1]
    spaxels = replace(
        whole, flux=whole.flux[:, near], error=whole.error[:, near], edges=edges
    )
    data, _, correlation = correlated(spaxels, names=("Hbeta", "OIII"))
    assert np.isinf(correlation.spectral_error[1:]).all()
    same(data, compress(spaxels, names=("Hbeta", "OIII"))[0])


def test_one_spectrum_knows_its_channels(mocks):
    """The brightest spaxel alone, as a slit would have it."""
    spaxels, _ = mocks[0]
    one = int(np.argmax(best(compress(spaxels)[0])[0][:, 2]))
    fields = ("flux", "error", "position", "index")
    alone = replace(spaxels, **{f: getattr(spaxels, f)[[one]] for f in fields})
    data, _, correlation = correlated(alone)
    assert correlation.spatial_inflation(index=alone.index) == 1.0
    assert correlation.spectral[1] == pytest.approx(0.74, abs=0.15)
    bare, _ = compress(alone)
    assert np.all(best(data)[1] > 1.2 * best(bare)[1])
    assert np.all(best(data)[1] < 2.5 * best(bare)[1])


# ------------------------------------------------------------------------ templates


@pytest.mark.parametrize(
    ("velocity", "scale"), [(0.0, 1.0), (-260.0, 0.7), (410.0, 1.2)]
)
@pytest.mark.parametrize("name", ["OII", "NeIII", "OIII", "NII", "Halpha"])
def test_templates_are_sums_of_gaussians(name, velocity, scale):
    """Against Astropy's Gaussians from the table of lines, on a far finer grid."""
    redshift, edges = 5.37, prism_edges(2.2, 4.6)
    found = templates(
        edges, (name,), redshift, prism(), np.array(velocity), np.array(scale)
    )[0]
    table, fine = cards.table("lines.ecsv"), 200
    steps = (np.arange(fine) + 0.5) / fine
    grid = (edges[:-1, None] + np.diff(edges)[:, None] * steps).ravel()
    curve = np.zeros_like(grid)
    members = zip(table["line"], table["wavelength"], table["weight"], strict=True)
    for line, rest, weight in members:
        if line == name:
            centre = rest * 1e-4 * (1 + redshift) * (1 + velocity / LIGHT)
            sigma = scale * prism().sigma(centre)
            curve += Gaussian1D(weight / np.sqrt(2 * np.pi) / sigma, centre, sigma)(
                grid
            )
    expected = curve.reshape(len(edges) - 1, fine).mean(axis=1)
    assert_allclose(found, expected, atol=1e-4 * expected.max())


def test_doublets_keep_their_ratio():
    lsf = constant(3000.0)  # resolves them
    edges = np.arange(2.4, 3.6, 2e-4)
    found = templates(edges, ("OIII", "NII"), 4.1, lsf, np.zeros(2), np.ones(2))
    assert found.shape == (2, 2, len(edges) - 1)
    for line, blue, red, ratio in [(0, 4960, 5008, 2.984), (1, 6550, 6585, 2.942)]:
        split = np.searchsorted(edges, (blue + red) / 2 * 1e-4 * 5.1)
        flux = found[1, line] * np.diff(edges)
        assert_allclose(flux[split:].sum() / flux[:split].sum(), ratio, rtol=1e-3)


# -------------------------------------------------------------------------- windows


@pytest.mark.parametrize("redshift", [1.07, 2.3, 3.4, 4.9, 6.4, 7.88])
def test_windows_hold_their_lines_and_do_not_overlap(redshift):
    edges = prism_edges()
    windows = find_complexes(edges, redshift, prism())
    stops = [0]
    table = cards.table("lines.ecsv")
    for window in windows:
        assert window.pixels.start >= stops[-1]
        stops.append(window.pixels.stop)
        low, high = edges[window.pixels.start], edges[window.pixels.stop]
        for line, rest in zip(table["line"], table["wavelength"], strict=True):
            if line in window.lines:
                observed = rest * 1e-4 * (1 + redshift)
                assert low < observed - 3.9 * prism().sigma(observed)
                assert high > observed + 3.9 * prism().sigma(observed)
    names = [name for window in windows for name in window.lines]
    assert len(names) == len(set(names))
    inside = 0.50082 * (1 + redshift) < 5.0
    assert ("OIII" in names) == inside


def test_only_the_lines_asked_for():
    windows = find_complexes(prism_edges(), 4.9, prism(), ("OIII", "Hbeta", "OII"))
    names = [name for window in windows for name in window.lines]
    assert sorted(names) == ["Hbeta", "OII", "OIII"]


def test_no_line_in_range_is_refused():
    with pytest.raises(
        ValueError, match=r"no emission line lies between 0\.700 and 5\.2"
    ):
        find_complexes(prism_edges(), 40.0, prism())


def test_total_is_the_weighted_mean():
    spaxels = spoil(noise_like_a_spectrum(3, 4.9), 3)
    part = cut(spaxels, find_complexes(spaxels.edges, 4.9, prism())[1], prism())
    whole = part.total()
    seen = part.weight.sum(axis=0) > 0
    expected = np.average(part.flux[:, seen], weights=part.weight[:, seen], axis=0)
    assert_allclose(whole.flux[0, seen], expected)
    assert_allclose(whole.weight[0], part.weight.sum(axis=0))


def test_lines_that_are_not_known_are_named():
    with pytest.raises(ValueError, match=r"unknown lines Hbta; known are .*Hbeta"):
        find_complexes(np.linspace(1.0, 5.0, 900), 6.0, prism(), ["Hbta", "OIII"])

"""The split of a model keeps its density: NumPyro's own is the reference."""

from dataclasses import replace
from math import prod
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpyro.infer.util import log_density, log_likelihood, potential_energy
from scipy.special import log_expit
from scipy.stats import multivariate_normal, norm
from test_scene import cut_out, patch, round_psf

from metalgrad import fields, lines, straight
from metalgrad.hierarchy import SIGNED, split
from metalgrad.likelihood import LineLikelihood, from_line_maps
from metalgrad.model import LineData, load_model
from metalgrad.scene import lay_out
from metalgrad.starts import prior_points, prior_sd
from metalgrad.supports import Probit
from metalgrad.textures import Spaxelwise

pytestmark = pytest.mark.usefixtures("double_precision")

SPAXELS = 5
LINES = ("OII", "Hbeta", "OIII", "NII", "Halpha")
LEAST_RED = 0.3 / 6  # a sixth of its prior's scale: where its softplus bends


def tables():
    """Line fluxes without spectra, one of them never measured."""
    rng = np.random.default_rng(0)
    error = np.full((SPAXELS, len(LINES)), 2.0)
    error[0, 1] = np.inf
    flux = rng.normal(10.0, 5.0, error.shape)
    position = rng.normal(size=(SPAXELS, 2))
    return from_line_maps(
        SimpleNamespace(lines=LINES, flux=flux, error=error, position=position)
    )


def spectra(count=SPAXELS):
    """Three complexes with correlated lines and channels that tell the noise."""
    rng = np.random.default_rng(1)
    root = np.zeros((count, 5, 5))
    for block in (slice(0, 1), slice(1, 3), slice(3, 5)):
        width = block.stop - block.start
        root[:, block, block] = rng.normal(size=(count, width, width))
    return LineLikelihood(
        lines=LINES,
        complexes=(LINES[:1], LINES[1:3], LINES[3:]),
        root=root,
        white=rng.normal(size=(count, 5)),
        misfit=rng.chisquare(30, (count, 3)),
        dof=np.full((count, 3), 30.0),
        log_norm=rng.normal(size=count),
        position=rng.normal(size=(count, 2)),
    )


def cube():
    """The same on a map of spaxels that see each other's light."""
    spaxels = cut_out(patch(7, 10))
    data = spectra(len(spaxels))
    observed = lines.wavelengths(LINES) * (1 + spaxels.redshift)
    scene = lay_out(spaxels, data.signal(), observed, round_psf())
    return replace(data, position=spaxels.position, pivot=None, scene=scene)


@pytest.fixture(
    scope="module",
    params=[("flat", tables), ("gradient", spectra)],
    ids=["tables", "spectra"],
)
def hierarchy(request):
    name, data = request.param
    model = load_model(name)
    return split(model, model.prepare(data()))


@pytest.fixture(scope="module")
def priors():
    """Priors as those of a model, but no ratios, which take seconds to compile."""

    def model(data):
        numpyro.sample("level", dist.Normal(8.0, 0.5))
        numpyro.sample("rho", dist.Uniform(0.0, 1.0))
        numpyro.sample("reddening", dist.HalfNormal(0.3))
        scatter = fields.sample_amplitude("scatter", dist.HalfNormal(0.15))
        scatter *= Spaxelwise(data.position).draw("offset")
        toy(lambda: scatter)(data)

    return split(model, spectra())


def points(hierarchy, count=4):
    """Random unconstrained points, near and far."""
    rng = np.random.default_rng(2)
    galaxy, latent = hierarchy.sizes
    units = 1 if hierarchy.coupled else SPAXELS
    for scale in np.linspace(0.3, 1.5, count):
        theta = scale * rng.normal(size=galaxy)
        yield jnp.asarray(theta), jnp.asarray(rng.normal(size=(units, latent)))


def by_site(hierarchy, theta, z):
    """The same point as NumPyro names it."""
    values, start = {}, 0
    for name, (shape, _) in hierarchy.galaxy.items():
        size = int(np.prod(shape, dtype=int))
        values[name] = theta[start : start + size].reshape(shape)
        start += size
    assert start == len(theta)
    start = 0
    for name, shape in hierarchy.unit.items():
        size = int(np.prod(shape, dtype=int))
        units = () if hierarchy.coupled else (len(z),)
        values[name] = z[:, start : start + size].reshape(*units, *shape)
        start += size
    assert start == z.shape[1]
    return values


def as_numpyro(sites):
    """Move ``rho`` from our probit to NumPyro's logit, ``reddening`` to its logarithm.

    Returns
    -------
    sites : dict
    log_volume : float
        log |d ours / d NumPyro's|: what our potential has less than NumPyro's.
    """
    probit, soft = sites["rho"], sites["reddening"] / LEAST_RED
    share = jax.scipy.stats.norm.cdf(probit)
    logit = jnp.log(share) - jax.scipy.stats.norm.logcdf(-probit)
    slope = jnp.log(share * (1 - share))  # of the sigmoid
    log_volume = slope - jax.scipy.stats.norm.logpdf(probit)
    log_red = jnp.log(LEAST_RED * jnp.logaddexp(soft, 0.0))  # its own slope's logarithm
    log_volume += log_red - jnp.log(jax.scipy.special.expit(soft))
    return sites | {"rho": logit, "reddening": log_red}, log_volume


@pytest.fixture(scope="module")
def coupled():
    model = load_model("gradient")
    return split(model, model.prepare(cube()))


@pytest.fixture(
    scope="module",
    params=[("flat", tables), ("gradient", spectra), ("gradient", cube)],
    ids=["tables", "spectra", "cube"],
)
def any_hierarchy(request):
    name, data = request.param
    model = load_model(name)
    return split(model, model.prepare(data()))


def test_the_density_is_numpyros(any_hierarchy):
    hierarchy = any_hierarchy
    arrays, model = hierarchy.data.arrays, hierarchy.model

    @jax.jit
    def both(theta, z):
        sites, log_volume = as_numpyro(by_site(hierarchy, theta, z))
        reference = potential_energy(model, (hierarchy.data,), {}, sites)
        return hierarchy.potential(arrays, theta, z), reference + log_volume

    for theta, z in points(hierarchy):
        actual, expected = both(theta, z)
        np.testing.assert_allclose(actual, expected, rtol=1e-11)


def test_densities_add_up_to_the_potential(any_hierarchy):
    hierarchy = any_hierarchy
    theta, z = next(points(hierarchy))
    arrays = hierarchy.data.arrays
    galaxy, spaxel = jax.jit(hierarchy.densities)(arrays, theta, z)
    assert spaxel.shape == z.shape[:1]
    total = jax.jit(hierarchy.potential)(arrays, theta, z)
    np.testing.assert_allclose(galaxy + spaxel.sum(), -total, rtol=1e-12)


def test_numpyro_sees_the_same_galaxy_at_the_sites_own_values(coupled):
    """Its priors, and the data of all spaxels and their latents as one unit."""
    theta, z = next(points(coupled))
    arrays, model = coupled.data.arrays, coupled.model
    values = coupled.unpack(theta, z)[0]
    galaxy, unit = jax.jit(coupled.densities)(arrays, theta, z)
    joint = jax.jit(lambda v: log_density(model, (coupled.data,), {}, v)[0])(values)
    volume = coupled.unpack(theta, z)[1]
    np.testing.assert_allclose(galaxy + unit[0] - volume, joint, rtol=1e-9)
    batch = {name: jnp.asarray(value)[None] for name, value in values.items()}
    by_spaxel = jax.jit(lambda b: log_likelihood(model, b, coupled.data)["data"])(
        batch
    )[0]
    found = jax.jit(coupled.pointwise)(arrays, theta, z)
    assert found.shape == (len(coupled.data),)
    np.testing.assert_allclose(found, by_spaxel, rtol=1e-9)
    prior = multivariate_normal(np.zeros(z.size)).logpdf(z[0])
    np.testing.assert_allclose(unit[0], by_spaxel.sum() + prior, rtol=1e-9)


def test_pointwise_adds_up_to_the_units_densities(hierarchy):
    theta, z = next(points(hierarchy))
    arrays = hierarchy.data.arrays
    unit = jax.jit(hierarchy.densities)(arrays, theta, z)[1]
    prior = norm.logpdf(z).sum(axis=1)
    found = jax.jit(hierarchy.pointwise)(arrays, theta, z)
    np.testing.assert_allclose(found + prior, unit, rtol=1e-11)


def test_neighbours_hang_together_on_a_scene(coupled):
    """All latents are one unit, and one of them moves more than one spaxel."""
    assert coupled.coupled
    assert "length" in coupled.galaxy
    theta, z = next(points(coupled))
    assert z.shape == (1, coupled.sizes[1])
    scene = coupled.data.scene
    fine = {"offset", "brightness_offset"}
    for name, shape in coupled.unit.items():
        waves = scene if name in fine else scene.coarse
        assert shape[0] == waves.frequency.size
    assert fine < coupled.unit.keys()
    arrays = coupled.data.arrays
    unit = jnp.zeros_like(z).at[0, 1].set(1.0)
    slope = jax.jvp(lambda z: coupled.pointwise(arrays, theta, z), (z,), (unit,))[1]
    assert np.mean(np.abs(slope) > 0) > 0.9


def test_a_spaxels_light_falls_on_its_neighbours_only_through_the_psf(coupled):
    """Residuals are those of SciPy's Gaussian, spaxel by spaxel, where clumps are 0."""
    theta, z = next(points(coupled))
    arrays = coupled.data.arrays
    sites = jax.jit(coupled.sites)(arrays, theta, z)
    flux = np.asarray(sites["line_flux"])
    assert flux.shape == (len(coupled.data), len(LINES))
    expected = np.einsum("srl,sl->sr", coupled.data.root, flux) - coupled.data.white
    scale = np.asarray(sites["noise_scale"])[coupled.data.row_complex]
    found = coupled.residuals(arrays, theta, z)
    np.testing.assert_allclose(found, expected / scale, rtol=1e-9, atol=1e-9)


def test_spaxels_are_independent_given_the_galaxy(hierarchy):
    theta, z = next(points(hierarchy))
    arrays = hierarchy.data.arrays
    jacobian = jax.jit(
        jax.jacobian(lambda z: hierarchy.densities(arrays, theta, z)[1])
    )(z)
    touched = np.abs(jacobian).max(axis=2) > 0
    np.testing.assert_array_equal(touched, np.eye(SPAXELS, dtype=bool))


def test_residuals_are_those_of_the_likelihood(hierarchy):
    """Half their square is all that the fluxes change in the density."""
    arrays = hierarchy.data.arrays
    (theta, z), (_, other) = list(points(hierarchy))[:2]

    def prior(z):
        return -0.5 * jnp.sum(z**2, axis=1)

    def gap(function):
        return function(z) - function(other)

    residuals = gap(lambda z: jnp.sum(hierarchy.residuals(arrays, theta, z) ** 2, 1))
    density = gap(lambda z: hierarchy.densities(arrays, theta, z)[1] - prior(z))
    np.testing.assert_allclose(density, -0.5 * residuals, rtol=1e-9, atol=1e-8)


def test_sites_are_every_latent_and_deterministic_one(hierarchy):
    theta, z = next(points(hierarchy))
    sites = hierarchy.sites(hierarchy.data.arrays, theta, z)
    expected = {*hierarchy.galaxy, *hierarchy.unit}
    expected |= {"central", "metallicity", "log_ratio", "ebv", "line_flux"}
    expected |= {"scatter", "reddening_scatter", "clumpiness", "shared_dispersion"}
    expected |= {"typical_ratio"}
    # All that a spaxel departs by tells its amplitude, and its mean but for the one
    # that the others' means depend on.
    expected |= {f"{name}_amplitude" for name in hierarchy.unit}
    expected |= {f"{name}_mean" for name in hierarchy.unit if name != "offset"}
    expected |= {"reddening_offset_bent"}  # data tell what its sum is bent to
    assert set(sites) == expected
    for name in ("scatter", "reddening_scatter"):
        assert sites[name] == abs(sites[f"{name}{SIGNED}"])
    assert sites["metallicity"].shape == (SPAXELS,)
    assert 0 < sites["rho"] < 1
    assert sites["reddening"] > 0


def test_prior_points_begin_at_the_median(priors):
    found = prior_points(priors, priors.data.arrays, jax.random.key(0), 3)
    assert found.shape == (3, priors.sizes[0])
    z = jnp.zeros((SPAXELS, priors.sizes[1]))
    values = priors.unpack(found[0], z)[0]
    # NumPyro's median is that of 15 draws: its error is 1.25 sd / sqrt(15).
    np.testing.assert_allclose(values["level"], 8.0, atol=0.5)
    np.testing.assert_allclose(values["rho"], 0.5, atol=0.3)
    assert 0.05 < values["reddening"] < 0.5
    # By symmetry an amplitude's median is 0, where a sampler cannot start.
    assert values[f"scatter{SIGNED}"] != 0
    assert not np.allclose(found[1], found[2])


def test_prior_sd_is_that_of_the_priors(priors):
    found = prior_sd(priors, priors.data.arrays, 4000)
    np.testing.assert_allclose(found["level"], 0.5, rtol=0.05)
    np.testing.assert_allclose(found["rho"], 12**-0.5, rtol=0.05)
    half = 0.3 * np.sqrt(1 - 2 / np.pi)
    np.testing.assert_allclose(found["reddening"], half, rtol=0.05)
    # Recorded without their signs, and half as wide.
    assert set(found) == set(priors.galaxy_names)
    np.testing.assert_allclose(found["scatter"], half / 2, rtol=0.05)


def test_probit_is_the_normal_distribution_function():
    """A bijection of the line onto (0, 1), with SciPy's density as its slope."""
    line = np.linspace(-5.0, 5.0, 41)
    share = Probit()(line)
    np.testing.assert_allclose(share, norm.cdf(line), rtol=1e-12)
    np.testing.assert_allclose(Probit().inv(share), line, atol=1e-9)
    change = Probit().log_abs_det_jacobian(line, share)
    np.testing.assert_allclose(change, norm.logpdf(line), rtol=1e-12)
    slope = jax.vmap(jax.grad(Probit()))(jnp.asarray(line))
    np.testing.assert_allclose(np.exp(change), slope, rtol=1e-12)


def test_half_normals_move_by_a_softplus():
    """SciPy's, that bends at a sixth of the scale: its value, inverse and slope."""

    def model(data):
        numpyro.sample("width", dist.HalfNormal(0.6))
        toy(lambda: numpyro.sample("offset", dist.Normal()))(data)

    transform, line = split(model, spectra()).galaxy["width"][1], np.linspace(-2, 2, 41)
    value = transform(line)
    np.testing.assert_allclose(value, 0.1 * np.log1p(np.exp(line / 0.1)), rtol=1e-9)
    np.testing.assert_allclose(transform.inv(value), line, atol=1e-7)
    change = transform.log_abs_det_jacobian(line, value)
    np.testing.assert_allclose(change, log_expit(line / 0.1), rtol=1e-9, atol=1e-14)


def telling(mean_of_second):
    """Make a model of two sites for each spaxel, that tells what it likes of either."""

    def model(data):
        size = numpyro.sample("size", dist.Normal(0.0, 2.0))
        with numpyro.plate("ratio", 2):
            centre = numpyro.deterministic("centre", jnp.array([0.2, 0.4]) * size)
            numpyro.sample("pair", dist.Normal(centre, jnp.exp(size)))
        width = numpyro.sample("width", dist.HalfNormal(0.5))
        with numpyro.plate("spaxel", len(data)):
            first = numpyro.sample("first", dist.Normal())
            second = numpyro.sample("second", dist.Normal().expand([2]).to_event(1))
        numpyro.deterministic("first_amplitude", jnp.full((len(data), 1), size))
        if mean_of_second is not None:
            mean = mean_of_second(size * first)[:, None] * jnp.array([1.0, 3.0])
            numpyro.deterministic("second_mean", mean)
            amplitude = width * jnp.arange(1.0, 3.0) * jnp.ones((len(data), 1))
            numpyro.deterministic("second_amplitude", amplitude)
        flux = jnp.broadcast_to(jnp.sum(second, 1)[:, None], data.white.shape)
        ones = jnp.ones(len(data.complexes))
        with numpyro.plate("spaxel", len(data)):
            numpyro.sample("data", LineData(data, flux, ones), obs=data.white)

    return split(model, spectra())


def test_means_and_amplitudes_are_those_that_a_model_tells():
    hierarchy = telling(jnp.square)
    assert list(hierarchy.unit) == ["first", "second"]
    z = jnp.asarray(np.random.default_rng(5).normal(size=(SPAXELS, 3)))
    theta = jnp.array([0.7, 0.0, 0.0, 0.3])
    width = hierarchy.unpack(theta, z)[0]["width"]
    mean, amplitude = hierarchy.locate(hierarchy.data.arrays, theta, z)
    square = (0.7 * np.asarray(z[:, :1])) ** 2
    expected = np.concatenate([0 * square, square, 3 * square], axis=1)
    np.testing.assert_allclose(mean, expected)
    row = np.array([0.7, width, 2 * width])
    np.testing.assert_allclose(amplitude, np.tile(row, (SPAXELS, 1)))


def test_what_a_model_does_not_tell_is_zero():
    hierarchy, z = telling(None), jnp.ones((SPAXELS, 3))
    mean, amplitude = hierarchy.locate(hierarchy.data.arrays, jnp.ones(4), z)
    np.testing.assert_array_equal(mean, np.zeros((SPAXELS, 3)))
    np.testing.assert_array_equal(amplitude, np.tile([1.0, 0.0, 0.0], (SPAXELS, 1)))


def test_one_latent_leads_if_others_are_about_it_and_it_about_none(coupled):
    assert telling(jnp.square).leading == 0
    assert coupled.leading is None
    plain = split(toy(lambda: numpyro.sample("offset", dist.Normal())), spectra())
    assert plain.leading is None


def test_peaks_are_of_the_galaxys_normals_at_their_middles():
    """By SciPy; what is not normal has none, nor have spaxels."""
    hierarchy, theta = telling(None), jnp.array([0.7, 5.0, -4.0, 0.3])
    found = hierarchy.peaks(hierarchy.data.arrays, theta)
    expected = norm.logpdf(0, 0, 2.0) + 2 * norm.logpdf(0, 0, np.exp(0.7))
    np.testing.assert_allclose(found, expected)


def test_derived_are_single_numbers_and_those_of_ratios(hierarchy):
    assert telling(None).derived == ("centre",)
    assert {"shared_dispersion", "scatter"} <= {*hierarchy.derived}
    assert not {"ebv", "log_ratio", "offset_amplitude"} & {*hierarchy.derived}


UNIT = {
    "flat": (dist.Uniform(0.0, 1.0), True),
    "flat, of two": (dist.Uniform(jnp.zeros(2), jnp.ones(2)), True),
    "wider": (dist.Uniform(0.0, 2.0), False),
    "lifted": (dist.Uniform(0.5, 1.0), False),
    "peaked": (dist.Beta(2.0, 2.0), False),
}


@pytest.mark.parametrize(("prior", "expected"), UNIT.values(), ids=UNIT)
def test_only_a_flat_prior_becomes_normal(prior, expected):
    def model(data):
        numpyro.sample("share", prior)
        toy(lambda: numpyro.sample("offset", dist.Normal()))(data)

    transform = split(model, spectra()).galaxy["share"][1]
    assert isinstance(transform, Probit) == expected


def toy(offset):
    """Make a model of one free flux per spaxel."""

    def model(data):
        level = numpyro.sample("flux_level", dist.Normal(1.0, 2.0))
        with numpyro.plate("spaxel", len(data)):
            shift = offset()
        flux = jnp.broadcast_to((level + shift)[:, None], data.white.shape)
        ones = jnp.ones(len(data.complexes))
        with numpyro.plate("spaxel", len(data)):
            numpyro.sample("data", LineData(data, flux, ones), obs=data.white)

    return model


NOT_STANDARD = {
    "shifted": dist.Normal(0.3, 1.0),
    "mirrored about the probe": dist.Normal(0.6, 1.0),
    "wide": dist.Normal(0.0, 2.0),
    "positive": dist.HalfNormal(),
    "heavy": dist.StudentT(3.0),
}


@pytest.mark.parametrize("prior", NOT_STANDARD.values(), ids=NOT_STANDARD)
def test_what_a_spaxel_draws_must_be_standard_normal(prior):
    model = toy(lambda: numpyro.sample("offset", prior))
    with pytest.raises(ValueError, match=r"site offset .* not standard normal; draw"):
        split(model, spectra())


def test_a_standard_normal_that_depends_on_the_galaxy_is_refused():
    def model(data):
        width = numpyro.sample("width", dist.HalfNormal())
        inner = toy(lambda: numpyro.sample("offset", dist.Normal(0.0, width)))
        inner(data)

    with pytest.raises(ValueError, match=r"site offset .* not standard normal; draw"):
        split(model, spectra())


def test_a_factor_is_refused():
    """It would be left out of the density without a word."""

    def model(data):
        toy(lambda: numpyro.sample("offset", dist.Normal()))(data)
        numpyro.factor("penalty", -1.0)

    with pytest.raises(ValueError, match=r"site penalty is observed .* only the site"):
        split(model, spectra())


def test_sites_of_two_kinds_are_refused():
    def model(data):
        with numpyro.plate("wave", 3):
            numpyro.sample("ripple", dist.Normal())
        toy(lambda: numpyro.sample("offset", dist.Normal()))(data)

    wanted = r"sites offset are drawn spaxel by spaxel and ripple as waves; draw all of"
    with pytest.raises(ValueError, match=wanted):
        split(model, spectra())


@pytest.mark.parametrize("prior", NOT_STANDARD.values(), ids=NOT_STANDARD)
def test_what_waves_weigh_must_be_standard_normal(prior):
    def model(data):
        with numpyro.plate("wave", 3):
            numpyro.sample("ripple", prior)
        toy(lambda: jnp.zeros(SPAXELS))(data)

    with pytest.raises(ValueError, match=r"site ripple .* not standard normal; draw"):
        split(model, spectra())


def test_normals_are_sorted_by_what_they_do(coupled):
    """Levels and brightness lead, shared dispersions scale, and the rest is free."""
    sizes = [prod(shape) for shape, _ in coupled.galaxy.values()]
    names, order = np.repeat([*coupled.galaxy], sizes), straight.sort(coupled)
    means = {name for name in names if name.startswith("mean_")}
    assert means
    assert {*names[order.leading]} == {"level", "slope", "brightness", "fading"} | means
    assert {*names[order.scaled]} == {"shared_dispersion"}
    assert {"rho", "length", "reddening", "scatter_signed"} <= {*names[order.free]}
    whole = np.concatenate([order.free, order.normals])
    assert_array_equal(np.sort(whole), np.arange(len(names)))


def test_normals_can_be_sorted_while_a_trace_is_under_way(coupled):
    """As of a run whose coordinates a checkpoint knows."""
    straight.sort.cache_clear()
    whole = jnp.arange(float(coupled.sizes[0]))
    free = jax.jit(lambda theta: theta[straight.sort(coupled).free])(whole)
    assert_array_equal(free, straight.sort(coupled).free)


def test_widths_of_normal_priors_are_told(coupled):
    """Of cards: the level's is 0.5 dex about 8, and shared ones' the root of rho."""
    arrays = coupled.data.arrays
    theta = prior_points(coupled, coupled.data.arrays, jax.random.key(0), 2)[1]
    mean, width, _ = coupled.scales(arrays, theta)
    names = [
        *np.repeat([*coupled.galaxy], [prod(s) for s, _ in coupled.galaxy.values()])
    ]
    at = names.index("level")
    assert (mean[at], width[at]) == (8.0, 0.5)
    assert width[names.index("length")] == 0
    rho = coupled.unpack(theta, jnp.zeros((1, coupled.sizes[1])))[0]["rho"]
    assert_allclose(width[names.index("shared_dispersion")], np.sqrt(rho))


def test_normals_are_put_together_as_they_were_taken_apart(coupled):
    arrays = coupled.data.arrays
    theta = prior_points(coupled, coupled.data.arrays, jax.random.key(0), 2)[1]
    normals = straight.standardise(coupled, arrays, theta)
    free = theta[straight.sort(coupled).free]
    assert_allclose(straight.join(coupled, arrays, free, normals)[0], theta)

    def go(normals):
        return straight.join(coupled, arrays, free, normals)[0]

    slope = np.asarray(jax.jacobian(go)(normals))[straight.sort(coupled).normals]
    volume = straight.join(coupled, arrays, free, normals)[1]
    assert_allclose(np.linalg.slogdet(slope)[1], volume)

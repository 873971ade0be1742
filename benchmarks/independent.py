"""Question: do the fits hold against cubes that somebody else made up?

``mock`` writes a NIRSpec PRISM IFU cube as the ``jwst`` pipeline would, of a galaxy
whose truth is known.  It shares no code with metalgrad, only published numbers
(``models/calibrations``, ``data/nirspec``), and tells a story of its own: light on a
finer grid than the spaxels, fields with a length, a PSF, velocities, drizzled noise,
outliers, and errors that need not be right.

Inside, wavelengths are in µm (rest wavelengths of lines in Å), positions in arcsec to
the east and north, fluxes in 1e-20 erg/s/cm², flux densities in the same per µm.
Run ``python benchmarks/independent.py PATH SEED SLOPE`` for one cube.
"""

import sys
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
from astropy.cosmology import Planck18
from astropy.io import fits
from astropy.table import Table
from scipy import fft
from scipy.linalg import toeplitz
from scipy.special import gammaincinv, ndtr

ROOT = Path(__file__).parents[1]
LIGHT = 299792.458  # km/s
FINE = 3  # emission is made on pixels this many times smaller than a spaxel
MARGIN = 0.3  # arcsec around the field from which the PSF still brings light
GRID = (0.6025, 5.3025, 941)  # µm: first and last bin's centre, bins (jwst 3.0)
APERTURE = 0.15  # arcsec, of the fluxes of COSMOS24108 in Venturi et al. (2024)
OIII, HBETA, BALMER, LYMAN = 5008.240, 4862.691, 3645.0, 1215.67  # Å
BREAK = 1.3  # factor by which a power law falls bluewards of the Balmer limit
FORMED = 300.0  # Myr

# Autocorrelation of the noise of a drizzled cube at 1, 2, ... spaxels and bins,
# measured on an offline run of the pipeline (0.05 arcsec, 0.005 µm).
SPATIAL = (0.58, 0.1)
SPECTRAL = (0.74, 0.37, 0.10, 0.03)

# Vacuum wavelength [Å], what the line scales with, and by how much.  Hydrogen: case B,
# 1e4 K; helium: 0.08 of hydrogen; doublets at 500 cm-3, unlike metalgrad's 300.
LINES = {
    "OII_3727": (3727.092, "OII", 0.497),
    "OII_3730": (3729.875, "OII", 0.503),
    "NeIII_3870": (3869.861, "NeIII", 1.0),
    "NeIII_3969": (3968.594, "NeIII", 0.301),
    "H12": (3751.224, "Hbeta", 0.0305),
    "H11": (3771.708, "Hbeta", 0.0397),
    "H10": (3798.983, "Hbeta", 0.0530),
    "H9": (3836.479, "Hbeta", 0.0731),
    "HeI_3889": (3889.749, "Hbeta", 0.090),
    "H8": (3890.166, "Hbeta", 0.1050),
    "Hepsilon": (3971.202, "Hbeta", 0.1590),
    "HeI_4027": (4027.328, "Hbeta", 0.019),
    "Hdelta": (4102.899, "Hbeta", 0.2589),
    "Hgamma": (4341.691, "Hbeta", 0.4683),
    "OIII_4364": (4364.436, "OIII_4364", 1.0),
    "HeI_4472": (4472.734, "Hbeta", 0.040),
    "Hbeta": (HBETA, "Hbeta", 1.0),
    "OIII_4960": (4960.295, "OIII", 0.335),
    "OIII_5008": (OIII, "OIII", 1.0),
    "HeI_5877": (5877.25, "Hbeta", 0.11),
    "NII_6550": (6549.861, "NII", 0.340),
    "Halpha": (6564.632, "Hbeta", 2.8632),
    "NII_6585": (6585.273, "NII", 1.0),
    "HeI_6680": (6679.995, "Hbeta", 0.031),
    "SII_6718": (6718.295, "SII", 0.525),
    "SII_6733": (6732.674, "SII", 0.475),
}


def mock(
    path,
    *,
    seed,
    slope,
    central=8.2,
    scatter=0.05,
    scatter_length=0.1,
    calibration="curti23",
    dispersion=1.0,
    rho=0.5,
    calibration_length=0.1,
    beyond="level",
    ebv=0.15,
    ebv_scatter=0.3,
    auroral=0.015,
    redshift=6.361,
    kpc_per_arcsec=None,
    sky=(150.197208, 2.478650),
    centre=(0.113, -0.067),
    width=2.0,
    pixel=0.05,
    wave=GRID,
    oiii=1500.0,
    effective_radius=1.2,
    sersic=1.0,
    axis_ratio=0.7,
    position_angle=40.0,
    light_offset=(0.0, 0.0),
    clumps=2,
    clump_share=0.2,
    equivalent_width=100.0,
    beta=-2.0,
    starry=True,
    rotation=60.0,
    turbulence=30.0,
    psf_scale=1.0,
    slice_angle=25.0,
    lsf_scale=0.85,
    noise=1.0,
    line_error=4.5,
    spatial=SPATIAL,
    spectral=SPECTRAL,
    error_scale=1.0,
    outliers=2e-4,
    flagged=2e-3,
    background=0.05,
):
    """Make up a galaxy, observe it, write the cube and return the truth.

    What the galaxy is depends on the seed and the galaxy's arguments alone: the same
    one is seen with another PSF or another noise.

    Parameters
    ----------
    path : path
        FITS file to write; what is there is replaced.
    seed : int
    slope, central : float
        Of 12+log(O/H) against radius in the image plane [dex/kpc, dex].
    scatter, scatter_length : float
        Scatter about the straight line [dex] and the length of its squared-exponential
        correlation [arcsec], which dust shares; 0: independent from spaxel to spaxel.
    calibration : str
        Name of a card that has R3, R2, Ne3O2, S2 and N2.
    dispersion : float
        In units of the calibration's own.
    rho, calibration_length : float
        Share of the dispersion's variance that is one draw for the galaxy; length of
        the rest, as ``scatter_length``.
    beyond : str
        How calibrations go on beyond the ends of their range: "level" or "straight".
    ebv, ebv_scatter : float
        Median E(B-V) [mag] and its scatter (natural logarithm); Calzetti, lines only.
    auroral : float
        [O III] 4364 over 5008, before dust.
    redshift, kpc_per_arcsec : float
        The scale is that of Planck18 if it is not given.
    sky, centre : (float, float)
        Field centre (RA, Dec) [deg]; centre of the gradient relative to it.
    width, pixel : float
        Of the field and of a spaxel.
    wave : (float, float, int)
        Centres of the first and of the last bin, number of bins.
    oiii : float
        Observed flux of [O III] 5008 of the whole galaxy.
    effective_radius, sersic, axis_ratio, position_angle
        Of the light (Hβ before dust): semi-major axis [kpc], index, minor over major
        axis, north through east [deg].
    light_offset : (float, float)
        Of the light's peak from the centre of the gradient.
    clumps, clump_share
        Number of Gaussian knots, and their share of the light.
    equivalent_width, beta : float
        Of Hβ in the rest frame [Å], over the continuum beside it (``inf``: none); power
        of wavelength of a continuum without stars.
    starry : bool
        Whether the continuum is that of typical stars, with their absorption lines.
    rotation, turbulence : float
        Asymptotic rotation about the light's minor axis, smooth scatter [km/s].
    psf_scale, slice_angle : float
        Size relative to D'Eugenio et al. (2023), 0 for none; direction of the slices,
        along which it is longer, north through east [deg].
    lsf_scale : float
        Width of the lines relative to the table of the JDox.
    noise : float
        In units of the default level; 0: no noise, outliers or background, but the
        errors of 1.
    line_error : float
        True flux error of an unresolved line at 3.7 µm in an aperture of 0.15 arcsec,
        whatever the correlation.
    spatial, spectral : sequence of float
        Autocorrelation of the noise at lags 1, 2, ...; ``()``: white.
    error_scale : float
        ERR over the true standard deviation.
    outliers, flagged : float
        Shares of voxels off by 10 to 50 sigma (and not flagged), and without data.
    background : float
        Residual, in standard deviations of one voxel.

    Returns
    -------
    dict
        All arguments; ``ra`` and ``dec`` of the gradient's centre; ``shared``, the
        galaxy's own offset from each calibration [dex]; ``flux``, the total of each
        line; ``maps`` (y, x), not blurred: means of ``metallicity``, ``ebv`` and
        ``velocity`` in each spaxel, and its share of the ``light``.
    """
    truth = {key: value for key, value in locals().items() if key != "path"}
    of_galaxy, of_noise = np.random.default_rng(seed).spawn(2)
    scale = kpc_per_arcsec or Planck18.kpc_proper_per_arcmin(redshift).value / 60
    edges, bins = wavelength_bins(*wave)
    east, north, margin = fine_grid(width, pixel)
    x, y = east - centre[0], north - centre[1]

    def draw(length):
        return gaussian_field(of_galaxy, east.shape, pixel, length)

    # The galaxy.
    shape = effective_radius / scale, sersic, axis_ratio, position_angle
    light = make_light(of_galaxy, x, y, shape, light_offset, clumps, clump_share)
    radius = np.hypot(x, y) * scale
    metallicity = central + slope * radius + scatter * draw(scatter_length)
    reddening = ebv * np.exp(ebv_scatter * draw(scatter_length))
    velocity = rotate(x, y, rotation, shape) + turbulence * draw(0.2)
    shared, ratio = {}, {}
    for name, card in read_calibration(calibration, "R3 R2 Ne3O2 S2 N2").items():
        sigma = dispersion * card["dispersion"]
        shared[name] = sigma * rho**0.5 * of_galaxy.standard_normal()
        local = sigma * (1 - rho) ** 0.5 * draw(calibration_length)
        ratio[name] = 10 ** (
            mean_log_ratio(card, metallicity, beyond) + shared[name] + local
        )
    # Its lines.
    emitted = {"Hbeta": light, "OIII": light * ratio["R3"], "OII": light * ratio["R2"]}
    emitted["NeIII"] = emitted["OII"] * ratio["Ne3O2"]
    emitted["OIII_4364"] = emitted["OIII"] * auroral
    emitted["SII"] = emitted["Hbeta"] * LINES["Halpha"][2] * ratio["S2"]
    emitted["NII"] = emitted["Hbeta"] * LINES["Halpha"][2] * ratio["N2"]
    seen = {
        name: share * emitted[parent] * 10 ** (-0.4 * calzetti(rest) * reddening)
        for name, (rest, parent, share) in LINES.items()
    }
    factor = oiii / seen["OIII_5008"].sum()
    seen = {name: flux * factor for name, flux in seen.items()}
    # Its spectra, as they reach the telescope, and as the instrument records them.
    level = seen["Hbeta"].sum() / (equivalent_width * 1e-4 * (1 + redshift))
    spectrum = level * continuum(bins, redshift, beta, lsf_scale, starry=starry)
    cube = (spectrum[:, None, None] * light).astype(np.float32)
    for name, flux in seen.items():
        observed = LINES[name][0] * 1e-4 * (1 + redshift) * (1 + velocity / LIGHT)
        add_line(cube, edges, flux, observed, lsf_scale)
    cube = blur_and_bin(cube, bins, pixel, psf_scale, slice_angle, margin)
    correlations = spectral, spatial, spatial
    sigma = noise_level(bins, edges, pixel, line_error, correlations, lsf_scale)
    data = add_noise(of_noise, cube, sigma * noise, correlations, outliers)
    data += background * noise * residual(of_noise, bins, sigma)
    error = np.broadcast_to(sigma * (noise or 1) * error_scale, data.shape)
    lost = of_noise.random(data.shape) < flagged

    truth |= {
        "kpc_per_arcsec": float(scale),
        "ra": float(sky[0] + centre[0] / 3600 / np.cos(np.radians(sky[1]))),
        "dec": sky[1] + centre[1] / 3600,
        "shared": shared,
        "flux": {name: float(flux.sum()) for name, flux in seen.items()},
    }
    write_s3d(path, data, error, lost, bins, pixel, sky, truth)
    maps = {"metallicity": metallicity, "ebv": reddening, "velocity": velocity}
    maps = {name: to_spaxels(map_, margin) / FINE**2 for name, map_ in maps.items()}
    return truth | {"maps": maps | {"light": to_spaxels(light, margin)}}


# The grids.


def wavelength_bins(first, last, count):
    """Edges and centres of the bins."""
    bins = np.linspace(first, last, count)
    step = bins[1] - bins[0]
    return np.append(bins - step / 2, bins[-1] + step / 2), bins


def fine_grid(width, pixel):
    """Offsets from the field's centre on the fine grid, and its margin in spaxels."""
    margin = int(np.ceil(MARGIN / pixel))
    count = FINE * (round(width / pixel) + 2 * margin)
    offset = (np.arange(count) - (count - 1) / 2) * pixel / FINE
    north, east = np.meshgrid(offset, -offset, indexing="ij")
    return east, north, margin


def to_spaxels(image, margin):
    """Sum the fine pixels of each spaxel, and cut the margin off."""
    side = len(image) // FINE
    summed = image.reshape(side, FINE, side, FINE).sum((1, 3))
    return summed[margin:-margin, margin:-margin]


def wavenumbers(count, step):
    """Cycles per arcsec along x (half of them) and y, for the real FFT."""
    return fft.rfftfreq(count, step)[None, :], fft.fftfreq(count, step)[:, None]


# The galaxy.


def gaussian_field(rng, shape, pixel, length):
    """Draw a field of unit variance on the fine grid; length 0: one value a spaxel."""
    if length == 0:
        coarse = rng.standard_normal([side // FINE for side in shape])
        return np.kron(coarse, np.ones((FINE, FINE)))
    kx, ky = wavenumbers(shape[0], pixel / FINE)
    gain = np.exp(-((np.pi * length) ** 2) * (kx**2 + ky**2))  # root of the power
    every = fft.fftfreq(shape[0], pixel / FINE)
    variance = np.mean(np.exp(-2 * (np.pi * length * every) ** 2)) ** 2
    white = fft.rfft2(rng.standard_normal(shape))
    return fft.irfft2(white * gain, shape) / np.sqrt(variance)


def axes(x, y, position_angle):
    """Coordinates along the position angle, and across it."""
    angle = np.radians(position_angle)
    sine, cosine = np.sin(angle), np.cos(angle)
    return x * sine + y * cosine, x * cosine - y * sine


def make_light(rng, x, y, shape, offset, clumps, clump_share):
    """Sérsic profile and Gaussian knots inside it; the sum is one."""
    radius, index, axis_ratio, position_angle = shape
    along, across = axes(x - offset[0], y - offset[1], position_angle)
    distance = np.hypot(along, across / axis_ratio) / radius
    light = np.exp(-gammaincinv(2 * index, 0.5) * distance ** (1 / index))
    light /= light.sum()
    if not clumps:
        return light
    knots = np.zeros_like(light)
    for _ in range(clumps):
        # On an ellipse at 0.5 to 1.8 effective radii, 0.08 to 0.16 arcsec wide.
        where, phase = radius * rng.uniform(0.5, 1.8), rng.uniform(0, 2 * np.pi)
        sigma = rng.uniform(0.08, 0.16) / 2.355
        du, dv = where * np.cos(phase), axis_ratio * where * np.sin(phase)
        knot = np.exp(-((along - du) ** 2 + (across - dv) ** 2) / (2 * sigma**2))
        knots += knot / knot.sum() * rng.uniform(0.5, 1.5)
    return (1 - clump_share) * light + clump_share * knots / knots.sum()


def rotate(x, y, speed, shape):
    """Line-of-sight velocity of a disc whose rotation rises and levels off."""
    radius, _, axis_ratio, position_angle = shape
    along, across = axes(x, y, position_angle)
    distance = np.hypot(along, across / axis_ratio)
    return speed * along / np.hypot(distance, radius / 2)


def read_calibration(name, ratios):
    """Cards of the ratios, each with its zero point and range."""
    text = (ROOT / "models" / "calibrations" / f"{name}.toml").read_text()
    card = tomllib.loads(text)
    whole = {key: card[key] for key in ("zero_point", "valid")}
    return {ratio: whole | card[ratio] for ratio in ratios.split()}


def mean_log_ratio(card, metallicity, beyond="level"):
    """Calibration's polynomial, and its value or its tangent beyond its range."""
    inside = np.clip(metallicity, *card["valid"])
    relation = np.polynomial.Polynomial(card["coefficients"])
    x = inside - card["zero_point"]
    if beyond == "level":
        return relation(x)
    return relation(x) + relation.deriv()(x) * (metallicity - inside)


def calzetti(rest):
    """Attenuation over E(B-V), Calzetti et al. (2000), Eq. 4, R_V = 4.05; Å."""
    inverse = 1e4 / rest
    if rest >= 6300:
        return 2.659 * (-1.857 + 1.040 * inverse) + 4.05
    blue = 1.509 * inverse - 0.198 * inverse**2 + 0.011 * inverse**3
    return 2.659 * (-2.156 + blue) + 4.05


# The spectra.


@cache
def read_table(name):
    """One of the instrument's tables."""
    return Table.read(ROOT / "data" / "nirspec" / f"{name}.ecsv")


def lsf_sigma(wave, lsf_scale):
    """Width of a line at an observed wavelength."""
    table = read_table("prism_resolution")
    power = np.interp(wave, table["wavelength"], table["resolution"])
    return lsf_scale * wave / power / 2.3548


def continuum(bins, redshift, beta, lsf_scale, *, starry):
    """Light of stars, or a power law with a break at 3645 Å; 1 at Hβ without it."""
    sigma = lsf_sigma(bins, lsf_scale)
    lyman, balmer = (
        ndtr((bins - rest * 1e-4 * (1 + redshift)) / sigma) for rest in (LYMAN, BALMER)
    )
    if starry:
        return lyman * starlight(bins, sigma, redshift)
    power = (bins / (HBETA * 1e-4 * (1 + redshift))) ** beta
    return power * lyman * (balmer + (1 - balmer) / BREAK)


def starlight(bins, sigma, redshift):
    """Stars that formed at a constant rate for 300 Myr, at a fifth of solar."""
    table = Table.read(ROOT / "data" / "stars.ecsv")
    names = [name.split("_") for name in table.colnames[1:]]
    chosen = ["_".join(n) for n in names if n[1] == "0.2" and float(n[3]) <= FORMED]
    light = sum(np.array(table[name], float) for name in chosen)
    rest = np.array(table["wavelength"]) * 1e-4
    beside = (np.abs(rest - 0.48) < 0.002) | (np.abs(rest - 0.493) < 0.002)
    light = light / light[beside].mean()
    power = np.polyfit(np.log(rest), np.log(light), 1)[0]
    far = np.arange(0.03, 1.2, rest[1] - rest[0])  # beyond the table: a power law
    whole = np.interp(far, rest, light)
    whole *= (np.minimum(far / rest[0], 1) * np.maximum(far / rest[-1], 1)) ** power
    seen = []
    for centre, width in zip(
        bins / (1 + redshift), sigma / (1 + redshift), strict=True
    ):
        near = np.abs(far - centre) < 6 * width + 0.001
        weight = np.exp(-0.5 * ((far[near] - centre) / width) ** 2)
        seen.append(np.average(whole[near], weights=weight))
    return np.array(seen)


def add_line(cube, edges, flux, observed, lsf_scale):
    """Add a Gaussian, integrated over the bins, to each fine pixel's spectrum."""
    sigma = lsf_sigma(observed.mean(), lsf_scale)
    first, last = np.searchsorted(
        edges, [observed.min() - 5 * sigma, observed.max() + 5 * sigma]
    )
    near = edges[max(first - 1, 0) : last + 1]
    if len(near) < 2:
        return
    below = ndtr((near[:, None, None] - observed) / sigma)
    share = np.diff(below, axis=0) / np.diff(near)[:, None, None]
    start = max(first - 1, 0)
    cube[start : start + len(share)] += flux * share


# The instrument.


def psf_fwhm(wave):
    """Along and across the slices, D'Eugenio et al. (2023), Eqs. 3 and 4."""
    rows = {row["direction"]: row for row in read_table("psf")}
    return [
        row["a"] + row["b"] * wave * np.exp(-row["c"] / wave)
        for row in (rows["along"], rows["across"])
    ]


def blur_and_bin(cube, bins, pixel, psf_scale, slice_angle, margin):
    """Convolve each plane with the PSF at its wavelength, and bin it to spaxels."""
    kx, ky = wavenumbers(cube.shape[-1], pixel / FINE)
    along, across = axes(-kx, ky, slice_angle)  # east is to the left
    widths = np.transpose(psf_fwhm(bins)) * psf_scale / 2.3548
    planes = []
    for plane, (major, minor) in zip(cube, widths, strict=True):
        if psf_scale:
            power = (major * along) ** 2 + (minor * across) ** 2
            transfer = np.exp(-2 * np.pi**2 * power).astype(np.float32)
            plane = fft.irfft2(fft.rfft2(plane) * transfer, plane.shape)
        planes.append(to_spaxels(plane, margin))
    return np.array(planes, dtype=float)


def noise_level(bins, edges, pixel, line_error, correlations, lsf_scale):
    """Find the standard deviation of a voxel, (bin, 1, 1).

    A line's flux is a sum over bins and spaxels, with the line's profile p over p·p
    and with the aperture as weights; its variance follows from the noise's
    correlation.  Flat in the middle (as are the errors of Venturi et al. 2024, Table 3,
    over the root of the line's width), rising to both ends.
    """
    spectral, spatial, _ = correlations
    step, reach = edges[1] - edges[0], round(APERTURE / pixel)
    side = np.arange(-reach, reach + 1)
    mask = (np.hypot(*np.meshgrid(side, side)) * pixel < APERTURE + 1e-9) * 1.0
    profile = (
        np.diff(ndtr(np.arange(-25, 25) * step / lsf_sigma(3.7, lsf_scale))) / step
    )
    rho = [
        toeplitz(np.pad([1, *tail], (0, count))[:count])
        for tail, count in ((spatial, len(side)), (spectral, len(profile)))
    ]
    spaxels = np.sum(mask * (rho[0] @ mask @ rho[0]))
    variance = spaxels * (profile @ rho[1] @ profile) / (profile @ profile) ** 2
    ends = 0.7 * np.exp((0.6 - bins) / 0.3) + 0.7 * np.exp((bins - 5.3) / 0.15)
    return (line_error / np.sqrt(variance) * (1 + ends))[:, None, None]


def correlated_noise(rng, shape, correlations):
    """Draw noise of unit variance with these autocorrelations along its axes."""
    pad = 2 * max(map(len, correlations), default=0)  # opposite edges must not know
    draw = rng.standard_normal([side + pad for side in shape])
    for axis, rho in enumerate(correlations):
        count = draw.shape[axis]
        lags = np.zeros(count)
        lags[: len(rho) + 1] = 1, *rho
        power = 2 * fft.rfft(lags).real - 1  # the lags at both sides, and 0 once
        if power.min() < 0:
            raise ValueError(f"{rho} is no autocorrelation: it has negative power")
        gain = np.expand_dims(
            np.sqrt(power), [a for a in range(draw.ndim) if a != axis]
        )
        draw = fft.irfft(fft.rfft(draw, axis=axis) * gain, count, axis=axis)
    return draw[tuple(slice(side) for side in shape)]


def add_noise(rng, cube, sigma, correlations, outliers):
    """Add noise, and lift or lower some voxels by 10 to 50 sigma."""
    draw = correlated_noise(rng, cube.shape, correlations)
    hit = rng.random(cube.shape) < outliers
    sign = rng.choice([-1, 1], hit.sum())
    draw[hit] += sign * rng.uniform(10, 50, hit.sum())
    return cube + sigma * draw


def residual(rng, bins, sigma):
    """Sky left over: slow waves in wavelength, the same in every spaxel."""
    period, phase = rng.uniform(0.5, 2), rng.uniform(0, 2 * np.pi)
    wave = np.sin(2 * np.pi * bins / period + phase)
    return sigma * (rng.choice([-1, 1]) + wave)[:, None, None] / 1.5


# The file.


def write_s3d(path, data, error, lost, bins, pixel, sky, truth):
    """Write SCI, ERR, DQ and WMAP in MJy/sr, with the truth in the primary header."""
    area = (pixel / 3600 * np.pi / 180) ** 2
    # 1e-20 erg/s/cm2/um, times wavelength² over c [µm/s], in units of 1e-17 (1 MJy)
    factor = (1e-20 * bins**2 / (LIGHT * 1e9) / 1e-17 / area)[:, None, None]
    header = fits.Header()
    for axis, (ctype, unit, value, step) in enumerate(
        [
            ("RA---TAN", "deg", sky[0], pixel / 3600),
            ("DEC--TAN", "deg", sky[1], pixel / 3600),
            ("WAVE", "um", bins[0], bins[1] - bins[0]),
        ],
        start=1,
    ):
        header[f"CTYPE{axis}"], header[f"CUNIT{axis}"] = ctype, unit
        header[f"CRVAL{axis}"], header[f"CDELT{axis}"] = value, step
        header[f"CRPIX{axis}"] = (data.shape[-1] + 1) / 2 if axis < 3 else 1.0
    header["PC1_1"], header["PC2_2"], header["PC3_3"] = -1.0, 1.0, 1.0
    header["WCSAXES"], header["RADESYS"], header["SPECSYS"] = 3, "ICRS", "BARYCENT"
    header["PIXAR_SR"], header["PIXAR_A2"] = area, pixel**2
    header["BUNIT"] = "MJy/sr"
    values = [np.where(lost, np.nan, v * factor).astype(">f4") for v in (data, error)]
    images = [
        fits.ImageHDU(values[0], header, "SCI"),
        fits.ImageHDU(values[1], fits.Header({"BUNIT": "MJy/sr"}), "ERR"),
        fits.ImageHDU(lost.astype(np.uint32), name="DQ"),  # DO_NOT_USE
        fits.ImageHDU((~lost).astype(np.float32), name="WMAP"),
    ]
    primary = fits.Header({"MOCK": True, "ORIGIN": "benchmarks/independent.py"})
    primary.update({"TELESCOP": "JWST", "INSTRUME": "NIRSPEC", "TARGNAME": "MOCK"})
    primary.update({"FILTER": "CLEAR", "GRATING": "PRISM"})
    for key, value in flatten(truth):
        primary[f"HIERARCH TRUTH {key}".upper()] = value
    fits.HDUList([fits.PrimaryHDU(header=primary), *images]).writeto(
        path, overwrite=True
    )


def flatten(truth):
    """Cards of the truth: one for each number of a tuple or dict."""
    for key, value in truth.items():
        if isinstance(value, dict):
            yield from ((f"{key} {name}", number) for name, number in value.items())
        elif isinstance(value, tuple):
            yield from ((f"{key} {i}", number) for i, number in enumerate(value))
        else:
            # FITS knows no infinity.
            yield key, value if np.isreal(value) and np.isfinite(value) else str(value)


if __name__ == "__main__":
    target, number, gradient = sys.argv[1:]
    drawn = mock(target, seed=int(number), slope=float(gradient))
    del drawn["maps"]
    print(*(f"{key} = {value}" for key, value in flatten(drawn)), sep="\n")

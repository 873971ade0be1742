"""Draw a mock observation of a target from the model, in the layout of real ones."""

from dataclasses import replace

import astropy.units as u
import jax
import jax.numpy as jnp
import numpy as np
from astropy.wcs import WCS
from numpyro import handlers

from metalgrad import dust, geometry, lines
from metalgrad.compression import compress
from metalgrad.cubes import FLUX_DENSITY, Cube
from metalgrad.hierarchy import SIGNED
from metalgrad.likelihood import LineLikelihood
from metalgrad.lsf import prism
from metalgrad.model import load_model
from metalgrad.painted import Painted, correlate
from metalgrad.psf import PSF, nirspec
from metalgrad.spaxels import Spaxels
from metalgrad.stars import typical
from metalgrad.windows import find_complexes, templates

PIXEL = 0.05  # arcsec: Venturi et al. (2024), Sect. 2.1
NIRSPEC = nirspec()
GRID = (0.6025, 5.3025, 941)  # µm: first and last centre, bins, as jwst 3.0 drizzles
HALF_LIGHT = 1.6783  # half-light radius of an exponential disc in scale lengths


def simulate(
    target,
    *,
    seed: int,
    model=None,
    truth: dict | None = None,
    width: float | None = None,
    length: float = 0.6,
    psf: PSF | None = NIRSPEC,
    lsf_scale: float = 0.9,
    velocity_scatter: float = 40.0,
    equivalent_width: float = 100.0,
    flagged: float = 0.002,
) -> Cube:
    """Draw a mock cube of a target from its card.

    The galaxy is an exponential disc of the published effective radius, its [O III]
    flux in the published aperture that of the source at the centre (the paper gives no
    positions of the others), its metallicity and dust that source's, its slope the
    published one.  What departs from that departs smoothly, over a length, and the PSF
    blurs it all.  Noise is white, and such that line fluxes in that aperture have the
    published errors.

    Parameters
    ----------
    target : Target
        With published values on its card.
    seed : int
    model : Model, optional
        The generative story; ``load_model("gradient")`` by default.
    truth : dict, optional
        Values of the model's galaxy sites (``slope``, ``scatter``, ``rho``, ...) to
        use, and ``central``; what is not given comes from the card, or is drawn.
    width : float, optional
        Side of the field [arcsec]; 2.6 target radii by default.
    length : float
        Of the correlation of departures [kpc]; 0 for spaxels that depart alone.
    psf : PSF or None
        Its slices lie north to south, along the columns of the map.
    lsf_scale : float
        Width of the LSF relative to its table.
    velocity_scatter : float
        Between spaxels [km/s].
    equivalent_width : float
        Rest-frame, of Hβ [Å], over the continuum near it: the light of typical stars
        (`metalgrad.stars`), with their absorption lines.
    flagged : float
        Share of voxels without data.

    Returns
    -------
    Cube
        With ``MOCK`` and the truth in its ``meta``.

    Raises
    ------
    ValueError
        If the card has no position or no published values.
    """
    source = _central_source(target)
    rng = np.random.default_rng(seed)
    wcs, position, shape = _grid(target, width or 2.6 * target.radius)
    light = _light(position, target)
    truth = _default_truth(target, source) | (truth or {})
    model = replace(
        model or load_model("gradient"),
        texture=Painted(
            light, correlate(position, length), (psf, shape, PIXEL), target.redshift
        ),
    )
    names, flux, truth = _draw_lines(model, position, truth, target, seed)
    seen = flux[_aperture(position, target), names.index("OIII")].sum()
    flux = flux * source["OIII"][0] / seen
    edges = _edges()
    velocity = velocity_scatter * rng.normal(size=len(position))
    scale = np.full(len(velocity), lsf_scale)
    design = templates(edges, names, target.redshift, prism(), velocity, scale)
    spectra = np.einsum("sl,sln->sn", flux, design)
    hbeta = flux[:, names.index("Hbeta")]
    level = hbeta / (equivalent_width * 1e-4 * (1 + target.redshift))
    spectra += level[:, None] * typical(edges, target.redshift, prism(), lsf_scale)
    error = np.broadcast_to(_noise(target, source, edges, lsf_scale), spectra.shape)
    spectra = spectra + error * rng.normal(size=spectra.shape)
    good = rng.random(spectra.shape) >= flagged
    return Cube(
        flux=_as_cube(np.where(good, spectra, np.nan), shape) << FLUX_DENSITY,
        error=_as_cube(np.where(good, error, np.nan), shape) << FLUX_DENSITY,
        edges=edges << u.um,
        good=_as_cube(good, shape),
        wcs=wcs,
        pixel_scale=PIXEL * u.arcsec,
        slices=0 * u.deg,
        meta={"MOCK": True, "ORIGIN": "metalgrad simulate", "SEED": seed}
        | {"TARGNAME": target.name}
        | {f"TRUTH {key}".upper(): value for key, value in truth.items()},
    )


def _central_source(target):
    centre = target.published.get("centre")
    if centre not in target.sources:
        raise ValueError(
            f"target {target.name} has no published central source to simulate; use a "
            "shipped target card, or add [published] centre and its line fluxes"
        )
    return target.sources[centre]


def _grid(target, width):
    """Celestial WCS, disc-plane positions [kpc] of all spaxels, and (ny, nx)."""
    side = int(np.ceil(width / PIXEL)) | 1
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.cdelt = -PIXEL / 3600, PIXEL / 3600
    wcs.wcs.crpix = (side + 1) / 2, (side + 1) / 2
    centre = target.centre.icrs
    wcs.wcs.crval = centre.ra.deg, centre.dec.deg
    y, x = np.indices((side, side)).reshape(2, -1)
    sky = wcs.pixel_to_world(x, y)
    offset = geometry.sky_offset(
        sky.ra.deg, sky.dec.deg, (centre.ra.deg, centre.dec.deg)
    )
    plane = geometry.deproject(offset, target.axis_ratio, target.position_angle)
    return wcs, np.asarray(plane) * target.kpc_per_arcsec, (side, side)


def _light(position, target):
    """Log10 brightness of an exponential disc."""
    return -np.hypot(*position.T) * HALF_LIGHT / target.effective_radius / np.log(10)


def _aperture(position, target):
    """Which spaxels lie in the published aperture."""
    limit = target.published["aperture"] * target.kpc_per_arcsec
    return np.hypot(*position.T) <= limit


def _default_truth(target, source):
    """Read slope, central metallicity and dust off the card."""
    reddening = 0.0
    if "Halpha" in source and "Hbeta" in source:
        pair = ("Halpha", "Hbeta")
        ratio = source["Halpha"][0] / source["Hbeta"][0]
        curve = dust.calzetti(lines.wavelengths(pair))
        excess = np.log10(ratio / lines.case_b()["Halpha"])
        reddening = max(2.5 * excess / (curve[1] - curve[0]), 0.0)
    return {
        "slope": target.published["gradient"][0],
        "central": source["metallicity"][0],
        "scatter": 0.05,
        "rho": 0.5,
        "reddening": max(reddening, 0.01),
        "reddening_scatter": 0.3,
    }


def _draw_lines(model, position, truth, target, seed):
    """Line names, their fluxes in every spaxel, and the truth that made them."""
    windows = find_complexes(_edges(), target.redshift, prism())
    names = tuple(name for window in windows for name in window.lines)
    count = len(position)
    blank = LineLikelihood(
        lines=names,
        complexes=tuple(window.lines for window in windows),
        root=jnp.broadcast_to(jnp.eye(len(names)), (count, len(names), len(names))),
        white=jnp.zeros((count, len(names))),
        misfit=jnp.zeros((count, len(windows))),
        dof=jnp.zeros((count, len(windows))),
        log_norm=jnp.zeros(count),
        position=jnp.asarray(position),
    )
    data = model.prepare(blank)
    values = dict(truth)
    central = values.pop("central")
    values["level"] = central + values.get("slope", 0.0) * float(data.pivot)
    values |= dict.fromkeys(("brightness", "fading"), 0.0)
    values |= {f"{name}{SIGNED}": value for name, value in values.items()}
    seeded = handlers.seed(handlers.substitute(model, values), jax.random.key(seed))
    trace = handlers.trace(seeded).get_trace(data)
    drawn = {
        name: float(site["value"])
        for name, site in trace.items()
        if site["type"] == "sample"
        and jnp.ndim(site["value"]) == 0
        and name not in (*values, "clumpiness")
    }
    truth = truth | drawn | {"pivot": float(data.pivot)}
    return data.lines, np.asarray(trace["line_flux"]["value"], float), truth


def _edges():
    first, last, count = GRID
    centres = np.linspace(first, last, count)
    step = centres[1] - centres[0]
    return np.append(centres - step / 2, last + step / 2)


def _noise(target, source, edges, lsf_scale):
    """Error per bin and spaxel that gives the published errors of line fluxes.

    A Gaussian line of width σ in white noise of standard deviation ``n`` per bin of
    width d has a flux error n sqrt(2 sqrt(π) σ d), times sqrt(N) for N spaxels; what
    continuum, width and blends cost on top is measured on the aperture's spectrum.
    """
    count = np.pi * (target.published["aperture"] / PIXEL) ** 2
    centres, step = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    known = tuple(name for name in lines.catalogue() if name in source)
    observed = lines.wavelengths(known) * (1 + target.redshift)
    measured = [source[name] for name in known]
    published = np.array(
        [m["limit"] / 3 if isinstance(m, dict) else m[1] for m in measured]
    )
    strength = [0.0 if isinstance(m, dict) else m[0] for m in measured]
    sigma = prism().sigma(observed, lsf_scale)
    level = published / np.sqrt(2 * np.sqrt(np.pi) * sigma * step)

    def over_bins(level):
        return np.exp(np.interp(centres, observed, np.log(level)))

    scale = np.array([lsf_scale])
    design = templates(edges, known, target.redshift, prism(), np.zeros(1), scale)
    aperture = Spaxels(
        flux=np.einsum("l,sln->sn", strength, design),
        error=over_bins(level)[None],
        edges=edges,
        position=np.zeros((1, 2)),
        index=np.zeros((1, 2), int),
        redshift=target.redshift,
        shape=(1, 1),
    )
    likelihood, _ = compress(aperture)
    error = dict(zip(likelihood.lines, likelihood.best_flux()[1][0], strict=True))
    cost = np.array([error[name] for name in known]) / published
    return over_bins(level / cost) / np.sqrt(count)


def _as_cube(values, shape):
    return np.ascontiguousarray(values.T.reshape(-1, *shape))

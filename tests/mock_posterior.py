"""A small tree in the layout of `metalgrad.record`, with draws that are known."""

import arviz_base
import numpy as np
from astropy.wcs import WCS

CHAINS, DRAWS = 4, 100
SIZE = (CHAINS, DRAWS)
SHAPE = (11, 14)
CENTRE = (4.25, 7.5)  # row, column
SIDE = 0.3  # kpc
SLOPE, CENTRAL, PIVOT = -0.08, 8.3, 1.0
LINES = ("Hbeta", "OIII", "NII", "Halpha")
SKY = (3.5, -30.38)
DIMS = {
    "metallicity": ["spaxel"],
    "ebv": ["spaxel"],
    "noise_scale": ["complex"],
    "model_flux": ["spaxel", "line"],
    "radius": ["spaxel"],
    "position": ["spaxel", "axis"],
    "x": ["spaxel"],
    "y": ["spaxel"],
}
UNITS = {
    "slope": "dex / {length}",
    "level": "12 + log(O/H)",
    "central": "12 + log(O/H)",
    "scatter": "dex",
    "reddening": "mag",
    "model_flux": "1e-20 erg / s / cm2",
}


def sky():
    """Coordinates on the sky: a turned grid, whose reference is the centre."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cunit = ["RA---TAN", "DEC--TAN"], ["deg", "deg"]
    wcs.wcs.crval, wcs.wcs.crpix = SKY, [CENTRE[1] + 1, CENTRE[0] + 1]
    wcs.wcs.cdelt = [-0.05 / 3600, 0.05 / 3600]
    turn = np.deg2rad(25)
    wcs.wcs.pc = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    return wcs


def places():
    """Rows and columns of the spaxels, and where they lie in the disc [kpc]."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    near = np.hypot(rows - CENTRE[0], columns - CENTRE[1]) < 3.5
    index = np.argwhere(near)
    turn, stretch = np.array([[0.8, 0.6], [-0.6, 0.8]]), np.array([1.0, 1.5])
    return index, SIDE * ((index - CENTRE) @ turn) * stretch


def groups():
    """Draws of every group."""
    rng = np.random.default_rng(3)
    index, position = places()
    radius = np.hypot(*position.T)
    slope, level = rng.normal(SLOPE, 0.02, SIZE), CENTRAL + SLOPE * PIVOT
    level = rng.normal(level, 0.03, SIZE)
    central = level - slope * PIVOT
    count = len(index)
    field = central[..., None] + slope[..., None] * radius
    bright = 50 * np.exp(-radius)[:, None] * [1.0, 5.0, 0.2, 2.9]
    return {
        "posterior": {
            "slope": slope,
            "level": level,
            "central": central,
            "scatter": rng.exponential(0.03, SIZE),
            "rho": rng.uniform(0, 1, SIZE),
            "reddening": rng.gamma(3.0, 0.02, SIZE),
            "noise_scale": rng.normal(1.5, 0.01, (*SIZE, 2)),
            "metallicity": rng.normal(field, 0.02),
            "ebv": rng.gamma(3.0, 0.02, (*SIZE, count)),
        },
        "sample_stats": {"diverging": rng.uniform(size=SIZE) < 0.02},
        "posterior_predictive": {
            "model_flux": bright * rng.normal(1, 0.01, (CHAINS, 10, count, 4))
        },
        "constant_data": {
            "radius": radius,
            "position": position,
            "y": index[:, 0],
            "x": index[:, 1],
        },
    }


def tree(given=None, **attrs):
    """Build the tree, of `groups` by default, with some attributes changed."""
    header = sky().to_header().tostring("\n", endcard=False, padding=False)
    attrs = {
        "target": "a galaxy",
        "redshift": 6.3,
        "model": "gradient",
        "field": "LinearGradient",
        "calibration": "curti23",
        "calibration_reference": "2024A&A...684A..75C",
        "ratios": ["R3", "N2"],
        "valid": [7.6, 8.25],
        "pivot": PIVOT,
        "length": "kpc",
        "effective_radius": 0.8,
        "shape": list(SHAPE),
        "wcs": header,
        "seed": 4,
        "created": "2026-01-02T03:04:05+00:00",
        "versions": '{"metalgrad": "0.1.0", "numpy": "2.5"}',
    } | attrs
    made = arviz_base.from_dict(
        given or groups(),
        dims=DIMS,
        coords={"line": list(LINES), "complex": ["Hbeta+OIII", "NII+Halpha"]},
        attrs={"/": attrs},
    )
    for group in made.children.values():
        for name, variable in group.data_vars.items():
            if name in UNITS:
                variable.attrs["units"] = UNITS[name].format(length=attrs["length"])
    return made

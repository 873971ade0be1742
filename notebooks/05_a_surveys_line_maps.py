# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A survey's line maps
#
# metalgrad needs no cube: fluxes and errors that somebody else has measured will do.
# Here those of NGC 4047 by CALIFA (Pipe3D), one row per pixel, with the O3N2
# calibration of Marino et al. (2013).
#
# The table comes with the EDGE-CALIFA database, `pip install edge-pydb` (the file
# `edge_pydb/img_califa/NGC4047_allpix.pipe3d.hdf5`), or may lie in this folder.
# Without it a mock table of the same form is made, so that the notebook runs.

# %%
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import astropy.units as u
import numpy as np
import numpyro.distributions as dist
from astropy.table import Table

import metalgrad as mg

small = bool(os.environ.get("METALGRAD_SMALL"))
length = {"warmup": 100, "draws": 100, "chains": 2} if small else {}
FILE = "NGC4047_allpix.pipe3d.hdf5"
R_E = 13.21  # arcsec, eCALIFA catalogue (Sánchez et al. 2023)


# %%
def find_file():
    """Look for the survey's table here, and in edge-pydb where it is installed."""
    package = find_spec("edge_pydb")
    folders = [
        Path(),
        *map(Path, package.submodule_search_locations if package else ()),
    ]
    places = [one / part / FILE for one in folders for part in ("", "img_califa")]
    return next((place for place in places if place.exists()), None)


def mock_table(seed, side=48, slope=-0.05, level=8.56):
    """Make a table of the same form, of a disc with a gradient [dex/R_e]."""
    rng = np.random.default_rng(seed)
    iy, ix = np.indices((side, side)).reshape(2, -1)
    away = np.hypot(iy - side // 2, ix - side // 2)  # pixels of 1", face-on
    metallicity = level + slope * (away / R_E - 1)
    n2 = -0.6 + 0.8 * (metallicity - 8.5)  # log [N II]/Hα: ours
    relation = mg.load_calibration("marino13-o3n2")
    o3n2 = np.asarray(relation.log_ratio("O3N2", metallicity))
    hbeta = 0.5 * np.exp(-away / 8)
    flux = {"Hbeta": hbeta, "[OIII]5007": hbeta * 10 ** (o3n2 + n2)}
    flux |= {"Halpha": 2.86 * hbeta, "[NII]6583": 2.86 * hbeta * 10**n2}
    table = Table({"ix": ix, "iy": iy, "rad_arc": away * u.arcsec})
    for name, value in flux.items():
        error = np.full(value.shape, 0.015)
        unit = u.Unit("1e-16 erg / (s cm2)")
        table[f"flux_{name}"] = rng.normal(value, error) * unit
        table[f"e_flux_{name}"] = error * unit
    return table


# %% [markdown]
# ## The table
# Columns are found by the names that surveys give them. A pixel is taken by its radius,
# never because its lines are bright: radii of 0.5 to 2 R_e, as is usual for gradients.

# %%
path = find_file()
if path is None:
    print(f"{FILE} is not here: a mock of its form is fitted")
    table = mock_table(seed=1)
else:
    table = Table.read(path, path="flux_elines")
table["radius"] = np.asarray(table["rad_arc"], float) / R_E
maps = mg.LineMaps.from_table(table, ("Hbeta", "OIII", "NII", "Halpha"))
maps = replace(maps, target="NGC 4047" if path else "a mock of NGC 4047")
print(f"{len(maps)} pixels; radii in {maps.radius_unit}")

# %% [markdown]
# ## From pixels to resolution elements
# CALIFA's PSF is 2.5 pixels of 1" wide (García-Benito et al. 2015), and a table has no
# PSF to be blurred by: pixels would count as independent what they are not. Sum
# squares first.


# %%
def bin_pixels(maps, keep, side):
    """Sum chosen pixels in squares; those of which less than half is chosen go."""
    square = maps.index[keep] // side
    place, owner, count = np.unique(
        square, axis=0, return_inverse=True, return_counts=True
    )
    add = (owner.ravel() == np.arange(len(count))[:, None]).astype(float)
    full = count >= side**2 / 2
    add, place = add[full], place[full]
    return replace(
        maps,
        flux=add @ maps.flux[keep],
        error=np.sqrt(add @ maps.error[keep] ** 2),
        position=add @ maps.position[keep] / add.sum(axis=1, keepdims=True),
        index=place,
        shape=tuple(int(size) for size in place.max(axis=0) + 1),
    )


measured = np.isfinite(maps.error).all(axis=1)
keep = measured & (maps.radius > 0.5) & (maps.radius < 2.0)
bins = bin_pixels(maps, keep, side=6 if small else 3)
print(f"{len(bins)} bins of {keep.sum()} pixels")

# %% [markdown]
# ## The model
# The card's priors are those of galaxies at z of 6; a spiral of today is richer, and
# radii are in R_e.

# %%
field = mg.LinearGradient(
    level=dist.Normal(8.5, 0.5),
    slope=dist.Normal(0.0, 0.2),
    scatter=dist.HalfNormal(0.1),
)
model = mg.load_model("gradient", calibration="marino13-o3n2")
model = replace(model, field=field)
posterior = mg.fit(model, bins, seed=1, progress=not small, **length)
print(mg.judge(posterior))

# %% [markdown]
# ## Beside the usual way
# Metallicities of bins in which all four lines are detected, and a straight line by
# least squares. The catalogue's is -0.051 ± 0.012 dex/R_e for the real galaxy.

# %%
hbeta, oiii, nii, halpha = bins.flux.T
detected = np.all(bins.flux > 3 * bins.error, axis=1)
relation = mg.load_calibration("marino13-o3n2")["O3N2"]
# 12+log(O/H) is a straight line in O3N2, so that the card is solved for it at once.
o3n2 = np.log10((oiii / hbeta * halpha / nii)[detected])
constant, linear = relation.coefficients
usual = relation.zero_point + (o3n2 - constant) / linear
slope, central = np.polyfit(bins.radius[detected], usual, 1)
draws = posterior["posterior"]["slope"]
print(f"least squares {slope:+.3f} dex/R_e, of {detected.sum()} bins")
print(f"joint fit     {draws.mean():+.3f} ± {draws.std():.3f} dex/R_e, of {len(bins)}")

# %%
ax = mg.plot.gradient(posterior)
ax.plot(bins.radius[detected], usual, ".", color="tab:orange", label="by the ratio")
ax.plot(bins.radius, central + slope * bins.radius, color="tab:orange")
ax.legend(frameon=False)

# %%
mg.plot.maps(posterior)

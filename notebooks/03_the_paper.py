# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # The paper in one notebook
#
# What Venturi et al. (2024, A&A 691, A19) did, step by step, and our joint fit beside
# it. Their cubes (JWST GO 1893) are in the archive of MAST; here a mock of COSMOS24108
# stands in for them. With a real cube, put its path into `Cube.read`.

# %%
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import astropy.units as u
import matplotlib.pyplot as plt
import numpy as np

import metalgrad as mg
from metalgrad.classical import chi2_metallicity
from metalgrad.literature import published, venturi24
from metalgrad.simulate import simulate

small = bool(os.environ.get("METALGRAD_SMALL"))
length = {"warmup": 100, "draws": 100, "chains": 2} if small else {}

# %% [markdown]
# ## Table 3, from its own fluxes
# Metallicities by least χ² over all ratios whose lines have S/N > 3, and star formation
# rates from Hα, or Hβ where Hα is out of range. Sources with R3 alone (s1, c of
# BDF-3299) lie where it has its maximum: two metallicities are possible.

# %%
table = published("venturi24")
lines = ("OII", "NeIII", "Hbeta", "OIII", "Halpha", "SII")
curti = mg.load_calibration("curti23")
found = chi2_metallicity(
    {name: table[name].to_numpy() for name in lines},
    {name: table[f"{name}_err"].to_numpy() for name in lines},
    curti,
)
table["ours"] = found.metallicity
table["ours_low"], table["ours_high"] = found.lower, found.upper

# %%
lensed = (table["target"] == "A2744-YD4").to_numpy()
given = {
    "redshift": table["redshift"].to_numpy(),
    "ebv": found.ebv,
    "magnification": np.where(lensed, mg.load_target("a2744-yd4").magnification, 1.0),
}
unit = 1e-20 * u.erg / u.s / u.cm**2
rates = {
    name: mg.star_formation_rate(table[name].to_numpy() * unit, line=name, **given)
    for name in ("Halpha", "Hbeta")
}
red = np.isfinite(table["Halpha"])
table["our_rate"] = np.where(red, rates["Halpha"].value, rates["Hbeta"].value)

# %%
columns = ["target", "source", "metallicity", "ours", "ours_low", "ours_high"]
print(table[[*columns, "sfr", "our_rate"]].round(2).to_string(index=False))

# %% [markdown]
# ## The cube
# Lines of every spaxel, each fitted by itself (Sect. 2.2.1), and the joint fit.

# %%
target = mg.load_target("cosmos24108")
path = Path(tempfile.mkdtemp()) / "mock_s3d.fits"
simulate(target, seed=1).write(path)
cube = mg.Cube.read(path)
target = replace(target, radius=0.31) if small else target
spaxels = mg.Spaxels.select(cube, target)
fit = mg.fit_lines(spaxels)
posterior = mg.fit(
    mg.load_model("gradient"), spaxels, seed=1, progress=not small, **length
)

# %% [markdown]
# ## Figures 2 to 4: maps, and the spectrum of the centre
# First the metallicities of single spaxels by the paper's recipe: where the lines are
# detected, and noisy.

# %%
mg.plot.overview(fit, chi2_metallicity(fit.flux, fit.error, curti))

# %% [markdown]
# Then those of the joint fit. A spaxel without a detected line has a metallicity, too:
# an uncertain one.

# %%
mg.plot.overview(fit, posterior)

# %% [markdown]
# ## Figure 6 and Table 4: the gradient
# The cube is smoothed to one PSF (0.2": the paper's 0.18" is narrower than the PSF at
# the reddest line), summed in annuli one spaxel wide, and a straight line laid through
# their metallicities. The blue band is the mean field of the joint fit.

# %%
annuli = mg.annular_gradient(cube, target, goal_fwhm=0.2)
annuli.summary()["gradient", "gradient_err", "gradient_re", "gradient_re_err"]

# %%
mg.plot.against_annuli(posterior, annuli, fit, fwhm=0.2)

# %% [markdown]
# The annuli give the gradient of the image, the joint fit that of the galaxy before the
# PSF blurred it. Its band is wider, and honestly so: dust, the calibrations' dispersion
# that a whole galaxy has in common, and noise between neighbours are in it.

# %%
print(f"truth  {cube.meta['TRUTH SLOPE']:+.3f} dex/kpc")
low, middle, high = np.quantile(posterior["posterior"]["slope"], [0.16, 0.5, 0.84])
print(f"annuli {annuli.line.slope:+.3f} ± {annuli.line.slope_error:.3f}")
print(f"joint  {middle:+.3f} +{high - middle:.3f} -{middle - low:.3f}")

# %% [markdown]
# ## Figure 5: mass, star formation rate and metallicity
# The paper's own points, over what others measured. A galaxy of yours is one more
# entry: `{"mine": [(mass, posterior)]}`. Masses are fitted by `metalgrad.fit_sed`.

# %%
figure, (upper, lower) = plt.subplots(2, 1, figsize=(8.6, 9.4), layout="constrained")
mg.context.main_sequence(venturi24("sfr"), ax=upper)
mg.context.mass_metallicity(venturi24("metallicity"), ax=lower)

# %% [markdown]
# ## Figure 7: gradients through cosmic time
# The paper's four, and the posterior above.

# %%
mg.context.gradient_evolution(venturi24("gradient") | {"this mock": [posterior]})

# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # From a cube to a metallicity gradient
#
# A NIRSpec IFU PRISM cube goes in, the posterior of its metallicity gradient comes
# out. Real cubes are read in just the same way; here one is drawn from the card of
# COSMOS24108 (Venturi et al. 2024), so that the truth is known.

# %%
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import metalgrad as mg
from metalgrad.simulate import simulate
from metalgrad.summary import describe, summary

small = bool(os.environ.get("METALGRAD_SMALL"))
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The data
# The target's card knows its redshift, its scale and where to look. The mock's slope is
# -0.1 dex/kpc.

# %%
target = mg.load_target("cosmos24108")
path = folder / "mock_s3d.fits"
simulate(target, seed=1, truth={"slope": -0.1}).write(path)
cube = mg.Cube.read(path)
target = replace(target, radius=0.31) if small else target
spaxels = mg.Spaxels.select(cube, target)
print(f"{len(spaxels)} spaxels, chosen by place and not by signal to noise")

# %% [markdown]
# ## What the spectra say
# Every spaxel is compressed to a Gaussian in its line fluxes. Most lines of most
# spaxels are not detected; none of them is thrown away.

# %%
data, tuning = mg.compress(spaxels)
flux, error = data.best_flux()
for line, share in zip(data.lines, (flux > 3 * error).mean(axis=0), strict=True):
    print(f"{line:10} above 3 sigma in {share:4.0%} of the spaxels")

# %% [markdown]
# ## The fit

# %%
model = mg.load_model("gradient")
length = {"warmup": 100, "draws": 100, "chains": 2} if small else {}
posterior = mg.fit(model, spaxels, seed=1, progress=not small, **length)
print(describe(posterior))

# %%
summary(posterior)["name", "unit", "q16", "q50", "q84", "r_hat"].pprint(max_lines=-1)

# %%
mg.plot.gradient(posterior)

# %%
mg.plot.maps(posterior)

# %% [markdown]
# ## Is there a gradient at all?
# The log likelihood in the tree has each spaxel's own latents integrated out, so that
# leave-one-out by importance sampling works; the table is ArviZ's.

# %%
flat = mg.fit(mg.load_model("flat"), spaxels, seed=1, progress=not small, **length)
print(mg.compare({"gradient": posterior, "flat": flat}))

# %% [markdown]
# The slope is recovered within its error, and the straight gradient predicts a spaxel
# that it has not seen better than one level for all does.

# %%
folder_of_the_fit = folder / "posterior.nc"
posterior.to_netcdf(folder_of_the_fit, engine="h5netcdf")

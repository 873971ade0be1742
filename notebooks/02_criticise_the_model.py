# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Criticise the model
#
# A fit that has converged may still be a fit of the wrong model. Here a fit is asked
# what a referee would ask: have the chains converged, what did the prior allow before
# any data, does the fit foretell its own data, what drives the answer, and would a
# simpler model have done as well?

# %%
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import metalgrad as mg
from metalgrad import assumptions, comparison, criticism, criticism_plot
from metalgrad.simulate import simulate

small = bool(os.environ.get("METALGRAD_SMALL"))
length = {"warmup": 100, "draws": 100, "chains": 2} if small else {}

# %% [markdown]
# ## Data and model
# A mock of COSMOS24108 with a slope of -0.1 dex/kpc.

# %%
target = mg.load_target("cosmos24108")
path = Path(tempfile.mkdtemp()) / "mock_s3d.fits"
simulate(target, seed=1, truth={"slope": -0.1}).write(path)
cube = mg.Cube.read(path)
target = replace(target, radius=0.31) if small else target
spaxels = mg.Spaxels.select(cube, target)
model = mg.load_model("gradient")

# %% [markdown]
# ## Before the fit: what does the prior allow?
# Galaxies are drawn from the prior, and their line ratios compared with the observed
# ones. If these lay outside, no amount of data would mend it.

# %%
prior = assumptions.prior_predictive(model, spaxels, seed=1, draws=200)
table = assumptions.tabulate_prior(prior)
table.round(2)
table.pprint(max_width=-1)

# %%
criticism_plot.prior_ratios(prior)

# %% [markdown]
# ## Have the chains converged?

# %%
posterior = mg.fit(model, spaxels, seed=1, progress=not small, **length)
print(mg.judge(posterior))

# %%
mg.plot.trace(posterior, ["slope", "level", "scatter"])

# %% [markdown]
# ## Does the fit foretell its own data?
# Replicated fluxes are drawn from the posterior, noise included. χ² of each spaxel
# should be near the number of its lines, without structure on the sky: a blob in this
# map is a place that the model does not know.

# %%
images = criticism.chi2_images(posterior)
criticism_plot.chi2_map(posterior, images)

# %% [markdown]
# Where do observed fluxes fall among replicated ones? Evenly, if model and noise are
# right: blue curves stay inside the grey band.

# %%
criticism_plot.pit(criticism.pit(posterior, seed=1))

# %% [markdown]
# ## What drives the answer?
# Priors and likelihood are raised to a power, and the posterior is seen to move or not.
# A parameter that moves with its prior but not with the data is an assumption.

# %%
table = criticism.sensitivity(posterior)
print(table[["prior", "likelihood", "diagnosis"]].round(2).to_string())

# %% [markdown]
# ## Would a flat galaxy do as well?
# Each spaxel in turn is foretold from the others. A difference below two standard
# errors, or below four nats, tells nothing.

# %%
flat = mg.fit(mg.load_model("flat"), spaxels, seed=1, progress=not small, **length)
table = mg.compare({"gradient": posterior, "flat": flat})
print(table)
print(comparison.verdict(table))
print(*table.attrs["advice"], sep="\n")

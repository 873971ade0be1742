# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Add a calibration
#
# A calibration is a card: a TOML file with coefficients, dispersion and range. Yours
# needs no change of metalgrad. Wherever a calibration's name is asked for, the path of
# a card will do.

# %%
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import metalgrad as mg
from metalgrad.classical import chi2_metallicity
from metalgrad.simulate import simulate

small = bool(os.environ.get("METALGRAD_SMALL"))
length = {"warmup": 100, "draws": 100, "chains": 2} if small else {}
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The card
# Coefficients are those of log10(ratio) in ascending powers of 12+log(O/H) less
# `zero_point`. The numbers here are made up, to show how: those of `curti23`, with
# [O III]/Hβ higher by 0.08 dex. `check` holds values of the relation from somewhere
# else (a plot, another code): the tests of this repository hold a shipped card to them.

# %%
card = folder / "mine.toml"
card.write_text(
    """
reference = "my paper, in preparation"
zero_point = 8.69
valid = [7.0, 8.9]
status = "Made up: curti23 with R3 higher by 0.08 dex."

[R3]
coefficients = [-0.1968, -3.1422, -2.73, -0.6003]
dispersion = 0.09
direction = "ratio"
check = [[7.918, 0.878]]

[R2]
coefficients = [0.4326, -1.0751, -5.1141, -5.5321, -2.3009, -0.2850]
dispersion = 0.11
direction = "ratio"
""",
    encoding="utf-8",
)

# %% [markdown]
# A slip of the pen is found when the card is read:

# %%
slip = folder / "slip.toml"
slip.write_text(card.read_text(encoding="utf-8").replace("dispersion", "scatter"))
try:
    mg.load_calibration(slip)
except ValueError as error:
    print(error)

# %% [markdown]
# ## The relation
# Bands are the intrinsic dispersion; beyond `valid` relations go on straight.

# %%
metallicity = np.linspace(6.8, 9.0, 200)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharex=True, layout="constrained")
for name in ("curti23", card):
    calibration = mg.load_calibration(name)
    for ax, ratio in zip(axes, ("R3", "R2"), strict=True):
        middle = np.asarray(calibration.log_ratio(ratio, metallicity))
        half = np.asarray(calibration.dispersion(ratio, metallicity))
        (line,) = ax.plot(metallicity, middle, label=calibration.name)
        ax.fill_between(
            metallicity, middle - half, middle + half, color=line.get_color(), alpha=0.2
        )
        ax.set(xlabel="12 + log(O/H)", ylabel=f"log {ratio}")
axes[0].legend(frameon=False)

# %% [markdown]
# ## What it makes of data
# Lines of a mock galaxy, made with `curti23`, in annuli; first by least χ² with either
# card, annulus by annulus.

# %%
target = mg.load_target("cosmos24108")
annuli = mg.annular_gradient(simulate(target, seed=1), target).fit
ratios = ("R3", "R2")
for name in ("curti23", card):
    calibration = mg.load_calibration(name)
    found = chi2_metallicity(annuli.flux, annuli.error, calibration, ratios)
    print(f"{calibration.name:8}", found.metallicity.round(2))

# %% [markdown]
# ## The fit
# Then with all annuli at once. A model takes ratios that each set one new line, here
# [O III] by R3 and [O II] by R2.

# %%
model = replace(mg.load_model("gradient", calibration=card), ratios=ratios)
data = annuli.to_linemaps()
posterior = mg.fit(model, data, seed=1, progress=not small, **length)
mg.plot.gradient(posterior)

# %% [markdown]
# The posterior says which calibration it rests on. Fits of the same data by different
# calibrations are ranked by `mg.compare`.

# %%
print(posterior.attrs["calibration"], posterior.attrs["calibration_reference"])
for parameter in ("level", "slope"):
    draws = posterior["posterior"][parameter]
    print(f"{parameter:6} {draws.mean():+.3f} ± {draws.std():.3f}")

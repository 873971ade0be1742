"""Metallicity gradients of galaxies from joint fits of every spaxel's spectrum."""

from importlib import import_module
from importlib.metadata import version

from metalgrad.annular import AnnularGradient, annular_gradient
from metalgrad.budget import variance_budget
from metalgrad.calibrations import Calibration, load_calibration
from metalgrad.checks import ConvergenceWarning, leave_one_out
from metalgrad.clipping import clip_outliers
from metalgrad.comparison import compare
from metalgrad.compression import compress
from metalgrad.cubes import Cube
from metalgrad.fields import Flat, LinearGradient
from metalgrad.groups import leave_groups_out
from metalgrad.inference import fit
from metalgrad.linefit import LineFit, fit_lines
from metalgrad.linemaps import LineMaps
from metalgrad.model import Model, load_model
from metalgrad.patches import annuli, blocks
from metalgrad.psf import PSF, ImagePSF, nirspec
from metalgrad.ranks import sbc
from metalgrad.refitting import refit
from metalgrad.sed import fit_sed
from metalgrad.sizes import EffectiveRadius, effective_radius, find_peak
from metalgrad.spaxels import Spaxels
from metalgrad.starformation import star_formation_rate
from metalgrad.sums import add_up
from metalgrad.targets import Target, load_target
from metalgrad.textures import Independent, Smooth
from metalgrad.verdict import judge

__all__ = [
    "PSF",
    "AnnularGradient",
    "Calibration",
    "ConvergenceWarning",
    "Cube",
    "EffectiveRadius",
    "Flat",
    "ImagePSF",
    "Independent",
    "LineFit",
    "LineMaps",
    "LinearGradient",
    "Model",
    "Smooth",
    "Spaxels",
    "Target",
    "add_up",
    "annular_gradient",
    "annuli",
    "blocks",
    "clip_outliers",
    "compare",
    "compress",
    "effective_radius",
    "find_peak",
    "fit",
    "fit_lines",
    "fit_sed",
    "judge",
    "leave_groups_out",
    "leave_one_out",
    "load_calibration",
    "load_model",
    "load_target",
    "nirspec",
    "refit",
    "sbc",
    "star_formation_rate",
    "variance_budget",
]
LAZY = ("context", "plot", "sedplot")  # what would draw in matplotlib


def __dir__():
    """List what is lazy, too."""
    return sorted({*globals(), *LAZY, "__version__"})


def __getattr__(name):
    """Load the modules that need heavy libraries on first use."""
    if name in LAZY:
        return import_module(f"metalgrad.{name}")
    if name == "__version__":
        return version("metalgrad")
    raise AttributeError(f"module 'metalgrad' has no attribute {name!r}")

"""A cube of the pipeline, with its last outliers flagged."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from astropy.io import fits
from jaxtyping import Bool

from metalgrad.clipping import clip_outliers
from metalgrad.cubes import Cube
from metalgrad.files import NewFile
from metalgrad.spaxels import Spaxels
from metalgrad.targets import Target

# Of the flags of the pipeline: DO_NOT_USE and OUTLIER.
CLIPPED = 2**0 + 2**4
CARDS = {
    "MGPROG": "JWST programme",
    "MGBKGSUB": "dedicated background subtracted",
    "MGTARG": "target of metalgrad reduce",
    "MGVER": "version of metalgrad",
    "MGCLIP": "limit of clipping [robust sigma]",
    "MGNCLIP": "voxels clipped",
}


def flag_outliers(
    source: Path, path: Path, target: Target, *, limit: float, cards: dict
) -> int:
    """Copy a cube, its outliers flagged, and its making told in the header.

    What the pipeline wrote stays, with its version (CAL_VER) and the context of its
    reference files (CRDS_CTX).

    Parameters
    ----------
    source, path : path
        An ``s3d`` of the pipeline, and where to write.
    target : Target
        Whose lines are looked for.
    limit : float
        Of ``clip_outliers``.
    cards : dict
        More for the primary header, of ``CARDS``.

    Returns
    -------
    int
        How many voxels were flagged.
    """
    bad = _outliers(Cube.read(source), target, limit)
    cards = cards | {"MGTARG": target.name, "MGVER": version("metalgrad")}
    cards |= {"MGCLIP": limit, "MGNCLIP": int(bad.sum())}
    with fits.open(source) as hdus, NewFile(path) as fresh:
        for name, mark in (("SCI", np.nan), ("ERR", np.nan)):
            hdus[name].data[bad] = mark
        hdus["DQ"].data[bad] |= CLIPPED
        hdus[0].header.update({key: (cards[key], CARDS[key]) for key in cards})
        hdus.writeto(fresh)
    return int(bad.sum())


def _outliers(cube, target, limit) -> Bool[np.ndarray, "wave y x"]:
    """Which voxels of the whole field are off the fit of their spectrum."""
    # From anywhere in the field, a circle of its diagonal holds all of it.
    reach = cube.pixel_scale.to_value("arcsec") * np.hypot(*cube.shape)
    around = replace(target, radius=float(reach), masks=(), axis_ratio=1.0)
    spaxels = Spaxels.select(cube, around)
    clipped = clip_outliers(spaxels, limit=limit)
    bad = np.zeros(cube.flux.shape, bool)
    lost = np.isinf(clipped.error) & np.isfinite(spaxels.error)
    bad[:, spaxels.index[:, 0], spaxels.index[:, 1]] = lost.T
    return bad

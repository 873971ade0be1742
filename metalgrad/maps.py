"""Maps of a fit: one number per spaxel, back on the sky and into FITS."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from jaxtyping import Float, Shaped
from xarray import DataArray, DataTree

from metalgrad import geometry
from metalgrad.columns import LINE_FLUX
from metalgrad.files import NewFile, refuse_to_replace
from metalgrad.measures import SAMPLE
from metalgrad.positions import read_wcs

# The line whose brightness shows the gas best: the first that was fitted.
BALMER = ("Hbeta", "Halpha", "Hgamma", "Hdelta")
METALLIC = "OIII"
NO_INDEX = (
    "the fit of {target} knows radii but no rows and columns of spaxels; fit Spaxels, "
    "LineMaps.from_maps, or a table with the columns iy and ix, to have maps"
)
# FITS keyword: attribute of the record, comment.
PROVENANCE = {
    "OBJECT": ("target", "name of the galaxy"),
    "REDSHIFT": ("redshift", "of the galaxy"),
    "MODEL": ("model", "model card"),
    "FIELD": ("field", "kind of metallicity field"),
    "CALIB": ("calibration", "calibration of the line ratios"),
    "CALREF": ("calibration_reference", "its reference"),
    "RATIOS": ("ratios", "line ratios used"),
    "SEED": ("seed", "of the random numbers"),
    "DATE": ("created", "of the fit"),
    "VERSIONS": ("versions", "of the programs"),
}


class Map(NamedTuple):
    """One number per spaxel, laid out.

    Attributes
    ----------
    values : numpy.ndarray, (y, x)
        NaN where there is no spaxel.
    unit : str
        As FITS spells it.
    said : str
        What it is, in words.
    """

    values: Float[np.ndarray, "y x"]
    unit: str
    said: str


def lay_out(posterior: DataTree) -> dict[str, Map]:
    """Lay a fit's spaxels out as maps.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.

    Returns
    -------
    dict of str to Map
        ``METALLICITY`` and its posterior standard deviation ``METALLICITY_SD`` [dex],
        ``EBV`` and ``EBV_SD`` [mag], and the observed flux of a Balmer line (``HBETA``
        where it was fitted) and of ``OIII`` where it was, by the model
        [1e-20 erg/s/cm2 per spaxel]. All but ``_SD`` are posterior medians.

    Raises
    ------
    ValueError
        If the fit has no rows and columns of spaxels.
    """
    place = placer(posterior)
    draws = posterior["posterior"].dataset
    found = {}
    for name, unit, said in (
        ("metallicity", "dex", "12 + log(O/H)"),
        ("ebv", "mag", "E(B-V)"),
    ):
        centre, spread = draws[name].median(SAMPLE), draws[name].std(SAMPLE, ddof=1)
        found[name.upper()] = Map(place(centre), unit, f"{said}, median")
        found[f"{name.upper()}_SD"] = Map(place(spread), unit, f"{said}, sd")
    flux = posterior["posterior_predictive"].dataset["model_flux"]
    unit = LINE_FLUX.to_string("fits") if flux.attrs.get("units") else ""
    for line in _shown(flux):
        centre = flux.sel(line=line).median(SAMPLE)
        found[line.upper()] = Map(place(centre), unit, f"observed flux of {line}")
    return found


def placer(posterior: DataTree) -> Callable[[DataArray], np.ndarray]:
    """Return what lays one number per spaxel out, (y, x).

    Raises
    ------
    ValueError
        If the fit has no rows and columns of spaxels.
    """
    known, attrs = posterior["constant_data"].dataset, posterior.attrs
    shape = tuple(int(size) for size in np.ravel(attrs.get("shape", [])))
    if "y" not in known or len(shape) != 2:
        raise ValueError(NO_INDEX.format(target=attrs.get("target") or "the galaxy"))
    index = np.stack([known["y"], known["x"]], axis=-1).astype(int)

    def place(values: DataArray):
        return geometry.to_map(values.values, index, shape)

    return place


def celestial(posterior: DataTree) -> WCS | None:
    """Sky coordinates of a fit's maps, where they are known.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.

    Returns
    -------
    astropy.wcs.WCS or None
    """
    cards = posterior.attrs.get("wcs", "")
    return read_wcs(cards) if cards else None


def centre(posterior: DataTree) -> tuple[float, float] | None:
    """Row and column at which the galaxy's coordinates are zero.

    Coordinates in the plane of the disc are affine in rows and columns (to one part in
    a million over the arcseconds of a galaxy), so a straight fit finds their origin.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.

    Returns
    -------
    (float, float) or None
        None where the fit has no rows and columns, or its coordinates are not on them.
    """
    known = posterior["constant_data"].dataset
    if "y" not in known:
        return None
    index = np.stack([known["y"], known["x"]], axis=-1)
    return origin(index, known["position"].values)


def origin(
    index: Shaped[np.ndarray, "spaxel 2"], position: Float[np.ndarray, "spaxel 2"]
) -> tuple[float, float] | None:
    """Row and column at which coordinates in the plane of the disc are zero.

    Parameters
    ----------
    index : array, (spaxel, 2)
        Row and column of each spaxel.
    position : array, (spaxel, 2)
        Coordinates of each, affine in rows and columns.

    Returns
    -------
    (float, float) or None
        None where they are not affine, or the spaxels are on one line.
    """
    pixel = np.asarray(index, float)
    design = np.column_stack([pixel, np.ones(len(pixel))])
    affine, _, rank, _ = np.linalg.lstsq(design, position)
    scale = np.abs(np.linalg.det(affine[:2])) ** 0.5  # side of a spaxel
    stray = np.abs(design @ affine - position).max()
    if rank < 3 or stray >= 0.1 * scale:  # a tenth of a spaxel, as one sees it
        return None
    row, column = np.linalg.solve(affine[:2].T, -affine[2])
    return float(row), float(column)


def write_maps(
    posterior: DataTree,
    path: str | Path,
    images: dict[str, Map] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a fit's maps to FITS, one image extension each.

    Each has its BUNIT and the sky coordinates of the cube; the primary header says
    where the fit came from.

    Parameters
    ----------
    posterior : xarray.DataTree
        From `metalgrad.fit`.
    path : path
        FITS file to write.
    images : dict of str to Map, optional
        The extensions; by default those of `lay_out`.
    overwrite : bool
        Replace a file that is there.

    Raises
    ------
    FileExistsError
        If the file exists and ``overwrite`` is False.
    ValueError
        If the fit has no rows and columns of spaxels.
    """
    images = lay_out(posterior) if images is None else images
    refuse_to_replace(path, overwrite=overwrite)
    wcs = celestial(posterior)
    header = fits.Header() if wcs is None else wcs.to_header()
    hdus = [fits.PrimaryHDU(header=_provenance(posterior.attrs))]
    for name, (values, unit, said) in images.items():
        image = fits.ImageHDU(values.astype(np.float32), header, name)
        image.header["BUNIT"] = (unit, said)
        hdus.append(image)
    with NewFile(path) as fresh:
        fits.HDUList(hdus).writeto(fresh)


def _shown(flux):
    lines = [str(name) for name in flux.line.values]
    balmer = [name for name in BALMER if name in lines][:1]
    return [*balmer, *([METALLIC] if METALLIC in lines else [])]


def _provenance(attrs):
    header = fits.Header()
    header["ORIGIN"] = ("metalgrad", "program that made this file")
    for key, (name, comment) in PROVENANCE.items():
        value = attrs.get(name)
        if name == "ratios" and value is not None:
            value = ", ".join(np.ravel(value))  # netCDF makes one of a list of one
        value = value.item() if hasattr(value, "item") else value
        if name == "created" and value:
            value = value.removesuffix("+00:00")  # FITS knows UTC only
        is_nan = value != value
        if value not in (None, "") and not is_nan:
            header[key] = (_ascii(value), comment)
    return header


def _ascii(value):
    """Spell a text as FITS can hold it, other characters by their code points."""
    if not isinstance(value, str):
        return value
    return " ".join(value.split()).encode("ascii", "backslashreplace").decode()

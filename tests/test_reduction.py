"""Reduction: bookkeeping with stages that cost nothing, and once the pipeline itself.

The slow test runs the jwst pipeline, all three stages, on raw exposures of a point
source with emission lines that nirspec_ramps.py draws, and finds it in the cube.
"""

import json
import os
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from scipy.optimize import curve_fit
from scipy.stats import norm

from metalgrad import load_target, reduction
from metalgrad.cubes import Cube
from metalgrad.reduction import reduce

RAW = [f"jw0189300{n}001_02101_00001_nrs1" for n in (1, 2)]  # galaxy and sky
OUTLIER = (35, 3, 4)  # wave, y, x


@pytest.fixture
def target():
    field = SkyCoord(150.1972, 2.47865, unit="deg")
    return replace(load_target("cosmos24108"), position=field)


def blank_cube(path, target, header):
    """Write an s3d: the doublet of [O III], a voxel far off, and noise."""
    rng = np.random.default_rng(4)
    wave = 3.4 + 0.01 * np.arange(60)
    edges = np.append(wave, wave[-1] + 0.01) - 0.005
    flux = rng.normal(0, 0.1, (60, 8, 9))
    for rest, share in ((0.500824, 1.0), (0.4960295, 1 / 2.98)):
        shape = np.diff(norm.cdf(edges, rest * (1 + target.redshift), 0.0103))
        flux += 2 * share * shape[:, None, None]
    flux[OUTLIER] = 60.0
    wcs = WCS(naxis=3)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN", "WAVE"]
    wcs.wcs.crval = [target.position.ra.deg, target.position.dec.deg, wave[0]]
    wcs.wcs.crpix, wcs.wcs.cdelt = [5, 4, 1], [-0.05 / 3600, 0.05 / 3600, 0.01]
    wcs.wcs.cunit = ["deg", "deg", "um"]
    cards = wcs.to_header()
    cards["BUNIT"], cards["PIXAR_SR"] = "MJy/sr", 5.876e-14
    error = np.full(flux.shape, 0.1, "f4")
    fits.HDUList(
        [
            fits.PrimaryHDU(header=header),
            fits.ImageHDU(flux.astype("f4"), cards, "SCI"),
            fits.ImageHDU(error, fits.Header({"BUNIT": "MJy/sr"}), "ERR"),
            fits.ImageHDU(np.zeros(flux.shape, "u4"), name="DQ"),
        ]
    ).writeto(path)


def stage(state, name, suffix, target):
    """Make a stage that writes a header, and notes how it is called."""

    def call(source, *, steps, output_dir, save_results, configure_log):
        assert (save_results, configure_log) == (True, False)
        source, context = Path(source), os.environ["CRDS_CONTEXT"]
        state.calls.append((name, source.name, steps, context))
        if state.fail is not None:
            raise state.fail
        product, science = source.stem.removesuffix("_uncal"), source
        if source.suffix == ".json":
            (one,) = json.loads(source.read_text(encoding="utf-8"))["products"]
            state.members = [member["expname"] for member in one["members"]]
            product, science = one["name"], source.parent / state.members[0]
        header = fits.getheader(science)
        header.update(S_BKDSUB=state.bkg, CAL_VER="3.0.0", CRDS_CTX=context)
        path = Path(output_dir) / f"{product}_{suffix}.fits"
        if suffix == "s3d":
            blank_cube(path, target, header)
        else:
            fits.PrimaryHDU(header=header).writeto(path)

    return types.SimpleNamespace(call=call)


@pytest.fixture
def stubs(monkeypatch, target):
    """Stand in for jwst and the part of stpipe that knows CRDS."""
    state = types.SimpleNamespace(calls=[], bkg="COMPLETE", fail=None, context=None)
    pipeline = types.SimpleNamespace(
        Detector1Pipeline=stage(state, "Detector1Pipeline", "rate", target),
        Spec2Pipeline=stage(state, "Spec2Pipeline", "cal", target),
        Spec3Pipeline=stage(state, "Spec3Pipeline", "s3d", target),
    )

    def get_context_used(observatory):
        assert observatory == "jwst"
        if state.context is not None:
            raise state.context
        return os.environ.get("CRDS_CONTEXT", "jwst_1321.pmap")

    client = types.SimpleNamespace(get_context_used=get_context_used)
    jwst = types.SimpleNamespace(__version__="3.0.0", pipeline=pipeline)
    stpipe = types.SimpleNamespace(crds_client=client)
    for name, module in {
        "jwst": jwst, "jwst.pipeline": pipeline, "stpipe": stpipe,
        "stpipe.crds_client": client,
    }.items():  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv("CRDS_CONTEXT", raising=False)
    return state


@pytest.fixture
def raw(tmp_path):
    """Raw exposures, headers only: of a galaxy and of the sky."""
    (tmp_path / "uncal").mkdir()
    for name, is_background in zip(RAW, (False, True), strict=True):
        header = fits.Header(
            {"EXP_TYPE": "NRS_IFU", "DETECTOR": "NRS1", "FILTER": "CLEAR",
             "GRATING": "PRISM", "PROGRAM": "01893", "BKGDTARG": is_background}
        )  # fmt: skip
        path = tmp_path / "uncal" / f"{name}_uncal.fits"
        fits.PrimaryHDU(header=header).writeto(path)
    return tmp_path


HERE = ("detector1", "spec2", "spec3", "clip")


def test_stages_follow_each_other_and_are_made_once(stubs, raw, target):
    path = reduce(target, raw, steps=HERE, quiet=True)
    assert [(name, source) for name, source, *_ in stubs.calls] == [
        ("Detector1Pipeline", f"{RAW[0]}_uncal.fits"),
        ("Detector1Pipeline", f"{RAW[1]}_uncal.fits"),
        ("Spec2Pipeline", f"{RAW[0]}_spec2_asn.json"),
        ("Spec3Pipeline", "cosmos24108_spec3_asn.json"),
    ]
    assert stubs.members == [f"{RAW[0]}_cal.fits"]
    cube = stubs.calls[-1][2]["cube_build"]
    assert cube == {"weighting": "drizzle", "scalexy": 0.05}
    assert reduce(target, raw, steps=HERE, quiet=True) == path
    assert len(stubs.calls) == 4
    (raw / "cal" / f"{RAW[0]}_cal.fits").unlink()
    reduce(target, raw, steps=["spec2"], quiet=True)
    assert [name for name, *_ in stubs.calls[4:]] == ["Spec2Pipeline"]
    assert not [*raw.rglob(".new-*")]


def test_the_product_says_how_it_was_made_and_lost_its_outlier(stubs, raw, target):
    path = reduce(
        target, raw, steps=HERE, context="jwst_1094.pmap", version="3.0.0", quiet=True
    )
    header = fits.getheader(path)
    told = {key: header[key] for key in ("CAL_VER", "CRDS_CTX", "MGPROG", "MGTARG")}
    assert told == {
        "CAL_VER": "3.0.0", "CRDS_CTX": "jwst_1094.pmap", "MGPROG": 1893,
        "MGTARG": "cosmos24108",
    }  # fmt: skip
    assert (header["MGBKGSUB"], header["MGCLIP"]) == (True, 5.0)
    assert {context for *_, context in stubs.calls} == {"jwst_1094.pmap"}
    before = fits.getdata(raw / "s3d" / path.name, "SCI")
    with fits.open(path) as hdus:
        lost = hdus["DQ"].data > 0
        assert lost[OUTLIER]
        assert header["MGNCLIP"] == lost.sum() < 5
        assert np.all(hdus["DQ"].data[lost] == 1 + 16)
        np.testing.assert_array_equal(np.isnan(hdus["SCI"].data), lost)
        np.testing.assert_array_equal(hdus["SCI"].data[~lost], before[~lost])
    assert not Cube.read(path).good[OUTLIER]


def test_parameters_of_the_user_come_last(stubs, raw, target):
    own = {"spec3": {"cube_build": {"scalexy": 0.1}, "outlier_detection": {"x": 1}}}
    reduce(target, raw, steps=HERE[:3], parameters=own, quiet=True)
    last = stubs.calls[-1][2]
    assert last["cube_build"] == {"weighting": "drizzle", "scalexy": 0.1}
    assert last["outlier_detection"] == {"x": 1}


def test_the_background_can_stay(stubs, raw, target):
    stubs.bkg = "SKIPPED"
    path = reduce(target, raw, steps=HERE, background=False, quiet=True)
    assert stubs.calls[2][2]["bkg_subtract"] == {"skip": True}
    assert fits.getheader(path)["MGBKGSUB"] is False


def test_a_background_left_in_is_an_error(stubs, raw, target):
    stubs.bkg = "SKIPPED"
    with pytest.raises(ValueError, match=r"was not subtracted .*grating wheel"):
        reduce(target, raw, steps=HERE, quiet=True)
    assert not [*raw.glob("cal/*")]


def test_two_contexts_or_settings_are_not_mixed(stubs, raw, target):
    reduce(target, raw, steps=["detector1"], quiet=True)
    with pytest.raises(ValueError, match=r"made with context jwst_1321.*now .*_1094"):
        reduce(target, raw, steps=["spec2"], context="jwst_1094.pmap", quiet=True)
    with pytest.raises(ValueError, match="begun with another clip"):
        reduce(target, raw, steps=["spec2"], clip=4.0, quiet=True)


@pytest.mark.parametrize(
    ("problem", "place"),
    [(SystemExit(-1), "context"), (SystemExit(-1), "fail"),
     (RuntimeError("Traceback\n crds.core.exceptions.CrdsDownloadError: x"), "fail")],
)  # fmt: skip
def test_no_reference_files_is_told_with_the_cure(
    stubs, raw, target, monkeypatch, problem, place
):
    monkeypatch.setenv("CRDS_PATH", "/some/cache")
    setattr(stubs, place, problem)
    with pytest.raises(OSError, match=r"CRDS_SERVER_URL .*CRDS_PATH \(it is /some"):
        reduce(target, raw, steps=HERE, quiet=True)
    assert not [*raw.glob("rate/*")]


def test_errors_of_the_pipeline_itself_stay(stubs, raw, target):
    stubs.fail = RuntimeError("Cannot determine WCS.")
    with pytest.raises(RuntimeError, match="Cannot determine WCS"):
        reduce(target, raw, steps=HERE, quiet=True)


def test_what_is_wrong_or_missing_is_named(stubs, raw, target, tmp_path):
    for arguments, words in (
        ({"steps": ["detector2"]}, "steps has detector2, which is none of download"),
        ({"parameters": {"spec1": {}}}, "parameters has spec1"),
        ({"steps": ["spec2"]}, r"rate has no \*_rate.fits; take the step detector1"),
        ({"steps": ["spec3"], "version": "1.11.0"}, "pip install jwst==1.11.0"),
    ):
        with pytest.raises(ValueError, match=words):
            reduce(target, raw, quiet=True, **arguments)
    with pytest.raises(ValueError, match="cosmos24108 has no position"):
        reduce(replace(target, position=None), tmp_path / "new")


def test_without_the_pipeline_there_is_a_cure(raw, target, monkeypatch):
    monkeypatch.setitem(sys.modules, "jwst", None)
    with pytest.raises(ValueError, match=r"install metalgrad\[reduction\]"):
        reduce(target, raw, steps=["detector1"], quiet=True)


def test_what_is_found_is_downloaded(stubs, target, tmp_path, monkeypatch):
    asked = {}
    archive = types.SimpleNamespace(
        find_exposures=lambda position, program: asked.update(program=program) or [1],
        download=lambda rows, folder, quiet: asked.update(rows=rows, folder=folder),
    )
    monkeypatch.setattr(reduction, "archive", archive)
    assert reduce(target, tmp_path, steps=["download"], quiet=True) == tmp_path
    assert asked == {"program": 1893, "rows": [1], "folder": tmp_path / "uncal"}
    assert stubs.calls == []


def line(x, flux, centre, sigma):
    return (
        flux / np.sqrt(2 * np.pi) / sigma * np.exp(-0.5 * ((x - centre) / sigma) ** 2)
    )


def fit_point_source(path, names, ramps):
    """Fit lines of one Gaussian point source to a cube, with Astropy and SciPy alone.

    Return its offset from the truth [arcsec], flux over the truth and centre of each
    line, and the true centres [um].
    """
    with fits.open(path) as hdus:
        header, flux = hdus["SCI"].header, hdus["SCI"].data.astype(float)
    wave = header["CRVAL3"] + header["CDELT3"] * np.arange(len(flux))
    # From MJy/sr to 1e-20 erg/s/cm2/um/arcsec2.
    area = header["PIXAR_SR"] / header["PIXAR_A2"]
    flux *= area * 2.99792458e17 / wave[:, None, None] ** 2
    rows, columns = np.indices(flux.shape[1:])
    ra, dec = WCS(header).celestial.pixel_to_world_values(columns, rows)
    east = (ra - ramps.FIELD[0]) * np.cos(np.deg2rad(ramps.FIELD[1])) * 3600
    east, north = east - ramps.SOURCE[0], (dec - ramps.FIELD[1]) * 3600
    north = north - ramps.SOURCE[1]
    inside = np.hypot(east, north) < 0.4
    truth = np.array([ramps.LINES[name] for name in names])
    centres = truth[:, 0] * (1 + ramps.REDSHIFT)
    sigmas = ramps.sigma_at(centres)
    near = wave > centres[0] - 6 * sigmas[0]
    near &= wave < centres[-1] + 6 * sigmas[-1]
    data = flux[near][:, inside]
    seen = np.isfinite(data)
    w = np.broadcast_to(wave[near][:, None], data.shape)[seen]
    x = np.broadcast_to(east[inside], data.shape)[seen]
    y = np.broadcast_to(north[inside], data.shape)[seen]

    def model(_, x0, y0, width, height, continuum, sky, *lines):
        psf = np.exp(-0.5 * (((x - x0) / width) ** 2 + ((y - y0) / height) ** 2))
        spectrum = continuum + sum(line(w, *one) for one in np.reshape(lines, (-1, 3)))
        return sky + psf / (2 * np.pi * width * height) * spectrum

    start = np.stack([truth[:, 1], centres, sigmas], axis=1)
    start = [0, 0, 0.1, 0.1, 0, 0, *start.ravel()]
    best, _ = curve_fit(model, None, data[seen], p0=start)
    found = best[6:].reshape(-1, 3)[:, :2]
    return best[:2], found / np.stack([truth[:, 1], np.ones(len(truth))], 1), centres


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the pipeline's own
def test_the_pipeline_recovers_a_point_source(shared, tmp_path, monkeypatch, target):
    """From raw ramps on: fluxes to 4 %, position to 10 mas, wavelengths to 1 nm."""
    pytest.importorskip("jwst")
    import nirspec_ramps as ramps

    for key, value in ramps.no_server(tmp_path).items():
        monkeypatch.setenv(key, value)
    for folder in ("references", "uncal"):
        (tmp_path / folder).mkdir()
    esa = shared / "esa_nirspec_model" / "NRS_COMM_16_NRS019_CAP031_2_FORE"
    files = ramps.references(esa, tmp_path / "references")
    ramps.observe(tmp_path / "uncal", files, np.random.default_rng(1))
    own = ramps.parameters(files)
    path = reduce(target, tmp_path, steps=HERE, parameters=own, quiet=True)
    header = fits.getheader(path)
    assert header["CRDS_CTX"] == "jwst_0000.pmap"
    assert (header["S_BKDSUB"], header["S_OUTLIR"]) == ("COMPLETE", "COMPLETE")
    assert fits.getheader(path, "SCI")["CDELT1"] * 3600 == pytest.approx(0.05)
    for names in (["OII"], ["Hbeta", "OIII4960", "OIII"], ["Halpha"]):
        offset, found, centres = fit_point_source(path, names, ramps)
        assert np.abs(offset).max() < 0.010
        assert found[:, 0] == pytest.approx(1, abs=0.04)
        assert np.abs(found[:, 1] - centres).max() < 0.001
    shutil.rmtree(tmp_path)  # 1 GB

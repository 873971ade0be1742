"""Raw NIRSpec IFU exposures of a point source with emission lines, and of the sky.

Ramps have photon noise, read noise and cosmic rays; the source has a Gaussian PSF.
"""

from pathlib import Path

import nirspec_references as refs
import numpy as np
from astropy.table import Table
from nirspec_references import GROUP_TIME, GROUPS, READ_NOISE, SHAPE

FIELD = (150.19720, 2.47865)  # deg: near COSMOS24108
SOURCE = (0.10, -0.06)  # arcsec, to the east and the north of the field's centre
PSF_SIGMA = 0.09  # arcsec
REDSHIFT = 6.361
LINES = {  # rest wavelength [um], flux [1e-20 erg/s/cm2]
    "OII": (0.37286, 4000.0),
    "Hgamma": (0.43417, 1500.0),
    "Hbeta": (0.48627, 3200.0),
    "OIII4960": (0.49603, 6700.0),
    "OIII": (0.50082, 20000.0),
    "Halpha": (0.65646, 9000.0),
}
DISPERSION = Table.read(
    Path(__file__).parents[1] / "data/nirspec/prism_resolution.ecsv"
)
COSMIC_RAYS = 3000
DITHERS = ((0.15, 0.10), (-0.12, -0.13))  # arcsec


def sigma_at(wave):
    """Return the width of a line in the spectrograph [um]."""
    power = np.interp(wave, DISPERSION["wavelength"], DISPERSION["resolution"])
    return wave / power / 2.354820


def sky(wave):
    """Return the surface brightness of the background [MJy/sr]."""
    return 0.6 + 0.3 * np.cos(wave)


def source(ra, dec, wave):
    """Return the surface brightness of the galaxy [MJy/sr]."""
    east = (ra - FIELD[0]) * np.cos(np.deg2rad(FIELD[1])) * 3600 - SOURCE[0]
    north = (dec - FIELD[1]) * 3600 - SOURCE[1]
    psf = np.exp(-0.5 * (east**2 + north**2) / PSF_SIGMA**2)
    psf /= 2 * np.pi * PSF_SIGMA**2 * refs.ARCSEC2
    spectrum = np.full(np.shape(wave), 2e-14)  # MJy
    for rest, flux in LINES.values():
        centre = rest * (1 + REDSHIFT)
        sigma = sigma_at(centre)
        density = flux * 1e-20 * np.exp(-0.5 * ((wave - centre) / sigma) ** 2)
        density /= np.sqrt(2 * np.pi) * sigma  # erg/s/cm2/um
        # 1 erg/s/cm2/um is (lambda/um)^2 / 2.99792458 * 1e9 Jy.
        spectrum = spectrum + density * wave**2 / 2.99792458 * 1e3
    return spectrum * psf


def label(model, name, number, place, *, is_background):
    """Fill in the header that the pipeline asks for."""
    meta = model.meta
    ra, dec = place
    meta.telescope, meta.filename = "JWST", name
    sections = {
        "instrument": {
            "name": "NIRSPEC", "detector": "NRS1", "filter": "CLEAR",
            "grating": "PRISM", "lamp_mode": "NONE", "gwa_xtilt": 0.339531332,
            "gwa_ytilt": 0.0316172019, "gwa_tilt": 37.1,
        },
        "exposure": {
            "type": "NRS_IFU", "readpatt": "NRSRAPID", "ngroups": GROUPS, "nints": 1,
            "nframes": 1, "groupgap": 0, "group_time": GROUP_TIME,
            "frame_time": GROUP_TIME, "exposure_time": GROUPS * GROUP_TIME,
            "start_time": 60000.0, "mid_time": 60000.0, "end_time": 60000.0,
            "integration_start": 1, "integration_end": 1, "gain_factor": 1.0,
        },
        "observation": {
            "date": "2022-11-25", "time": "00:00:00", "program_number": "01893",
            "observation_number": "002" if is_background else "001",
            "visit_number": "001", "visit_group": "02", "sequence_id": "1",
            "activity_id": "01", "exposure_number": f"{number:05d}",
            "bkgdtarg": is_background, "imprint": False,
        },
        "subarray": {
            "name": "FULL", "xstart": 1, "ystart": 1, "xsize": SHAPE[1],
            "ysize": SHAPE[0], "fastaxis": 2, "slowaxis": 1,
        },
        "wcsinfo": {
            "v2_ref": 300.0, "v3_ref": -498.16, "roll_ref": 20.0, "ra_ref": ra,
            "dec_ref": dec, "v3yangle": 138.97253, "vparity": -1,
        },
        "target": {
            "ra": ra, "dec": dec, "source_type": "EXTENDED",
            "source_type_apt": "EXTENDED", "catalog_name": "COSMOS24108",
        },
        "dither": {
            "primary_type": "CYCLING", "position_number": number, "total_points": 2,
        },
        "photometry": {
            "pixelarea_steradians": refs.PIXEL * refs.ARCSEC2,
            "pixelarea_arcsecsq": refs.PIXEL,
        },
    }  # fmt: skip
    for section, values in sections.items():
        for key, value in values.items():
            setattr(getattr(meta, section), key, value)
    return model


def rates(name, number, place, files, *, is_background):
    """Return what the sky gives on the detector [DN/s], and where it falls."""
    from gwcs.wcstools import grid_from_bounding_box
    from jwst.assign_wcs import AssignWcsStep, nirspec
    from stdatamodels.jwst import datamodels as dm

    empty = dm.IFUImageModel(SHAPE)
    label(empty, name, number, place, is_background=is_background)
    kinds = AssignWcsStep.reference_file_types
    step = AssignWcsStep(**{f"override_{k}": files.get(k, "N/A") for k in kinds})
    image, lit = np.zeros(SHAPE), np.zeros(SHAPE, bool)
    for one in nirspec.nrs_ifu_wcs(step.run(empty)):
        x, y = grid_from_bounding_box(one.bounding_box, step=(1, 1), center=True)
        ra, dec, wave = one(x, y)[:3]
        ok = np.isfinite(wave)
        pixels = y[ok].astype(int), x[ok].astype(int)
        seen = sky(wave[ok])
        if not is_background:
            seen = seen + source(ra[ok], dec[ok], wave[ok])
        response = refs.PHOTMJ * np.interp(wave[ok], refs.WAVE, refs.RESPONSE)
        image[pixels] = seen / (response / (refs.PIXEL * refs.ARCSEC2))
        lit[pixels] = True
    return image, lit


def expose(path, number, place, files, rng, *, is_background=False):
    """Write one exposure; place: right ascension and declination [deg]."""
    from stdatamodels.jwst import datamodels as dm

    image, lit = rates(path.name, number, place, files, is_background=is_background)
    steps = rng.poisson(image * GROUP_TIME, (GROUPS, *SHAPE)).astype(float)
    rows, columns = np.nonzero(lit)
    hit = rng.choice(len(rows), COSMIC_RAYS, replace=False)
    when = rng.integers(1, GROUPS, COSMIC_RAYS)
    steps[when, rows[hit], columns[hit]] += 4000.0
    ramp = 1000.0 + np.cumsum(steps, axis=0) + rng.normal(0, READ_NOISE, steps.shape)
    raw = dm.Level1bModel(data=np.rint(ramp)[None].clip(0, 65535).astype(np.uint16))
    label(raw, path.name, number, place, is_background=is_background)
    raw.save(path)


def dithered(shift):
    """Return where an exposure points [deg], of shifts [arcsec]."""
    ra, dec = FIELD
    return ra + shift[0] / 3600 / np.cos(np.deg2rad(dec)), dec + shift[1] / 3600


def observe(folder, files, rng):
    """Write two exposures of the galaxy and one of the sky beside it."""
    for number, shift in enumerate(DITHERS, start=1):
        path = folder / f"jw01893001001_02101_{number:05d}_nrs1_uncal.fits"
        expose(path, number, dithered(shift), files, rng)
    path = folder / "jw01893002001_02101_00001_nrs1_uncal.fits"
    expose(path, 1, dithered((60.0, 0.0)), files, rng, is_background=True)


def references(esa, folder):
    """Write every reference file; return the path of each kind."""
    from stdatamodels.jwst import datamodels as dm

    files = {}
    for kind, model in (*refs.geometry(esa), *refs.radiometry()):
        suffix = "fits" if isinstance(model, fits_kinds(dm)) else "asdf"
        files[kind] = str(folder / f"{kind}.{suffix}")
        refs.describe(model, kind).save(files[kind])
    refs.cube_parameters(folder / "cubepar.fits")
    files["cubepar"] = str(folder / "cubepar.fits")
    # Not by CRDS, but by name: the flat field's three files have no simple form.
    flat = dm.ImageModel(data=np.ones(SHAPE, "f4"))
    flat.err, flat.dq = np.zeros(SHAPE, "f4"), np.zeros(SHAPE, "u4")
    flat.save(folder / "flat.fits")
    files["user_flat"] = str(folder / "flat.fits")
    return files


def fits_kinds(dm):
    return dm.NrsMosPhotomModel, dm.NirspecIfuAreaModel, dm.GainModel, dm.ReadnoiseModel


def parameters(files):
    """Return what tells the pipeline's steps to ask no server: stage, step, value."""
    from jwst import pipeline

    unknown = {  # steps whose reference files are not had
        "detector1": {"dq_init", "saturation", "superbias", "refpix", "linearity"}
        | {"dark_current", "persistence", "picture_frame"},
        "spec2": {"msa_flagging", "pathloss", "master_background_mos"},
        "spec3": set(),
    }
    stages = {
        "detector1": pipeline.Detector1Pipeline,
        "spec2": pipeline.Spec2Pipeline,
        "spec3": pipeline.Spec3Pipeline,
    }
    given = {}
    for stage, made in stages.items():
        given[stage] = {}
        for name, step in made.step_defs.items():
            kinds = step.reference_file_types
            kinds = [] if isinstance(kinds, property) else kinds  # of a sub-pipeline
            own = {f"override_{kind}": files.get(kind, "N/A") for kind in kinds}
            own |= {"skip": True} if name in unknown[stage] else {}
            given[stage][name] = own
    given["spec2"]["flat_field"]["user_supplied_flat"] = files["user_flat"]
    return given


def no_server(folder):
    """Return the environment in which CRDS needs no server, and never asks one."""
    place = folder / "crds" / "config" / "jwst"
    place.mkdir(parents=True)
    nothing = {
        "observatory": "jwst", "latest_context": "jwst_0000.pmap",
        "operational_context": "jwst_0000.pmap", "reference_url": "",
        "mapping_url": "", "bad_files": "", "bad_files_list": [],
        "force_remote_mode": False, "connected": False, "last_synced": "never",
        "crds_version": {"str": "14.0", "time": "", "type": ""}, "mappings": [],
    }  # fmt: skip
    (place / "server_config").write_text(repr(nothing), encoding="utf-8")
    return {
        "CRDS_SERVER_URL": "https://jwst-serverless-mode.stsci.edu",
        "CRDS_PATH": str(folder / "crds"),
        "CRDS_CONTEXT": "jwst_0000.pmap",
        "CRDS_OBSERVATORY": "jwst",
        "STPIPE_DISABLE_CRDS_STEPPARS": "true",
    }

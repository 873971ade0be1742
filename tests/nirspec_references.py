"""Reference files of a NIRSpec IFU whose radiometry is known, for the jwst pipeline.

The geometry is that of ESA's in-flight instrument model (text and FITS tables, read
here from their format); the radiometry is ours and simple, so that the truth is known.
Every reference file that a step asks for is given, so that no CRDS server is needed.
"""

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.modeling import models

ARCSEC2 = (np.pi / 180 / 3600) ** 2  # sr
PIXEL = 0.01  # arcsec2, of a detector pixel on the sky
PHOTMJ = 1e-13  # MJy a DN/s
WAVE = np.linspace(0.5, 5.5, 150)
RESPONSE = 1 + 0.2 * np.sin(WAVE)
GROUPS, GROUP_TIME, READ_NOISE = 5, 100.0, 6.0  # s, DN
SHAPE = (2048, 2048)


def read_table(path):
    """Return the numbers under each "*Key" of one of ESA's text files."""
    found, key = {}, None
    for line in Path(path).read_text(encoding="latin-1").splitlines():
        if line.startswith("*"):
            key = line[1:].split()[0]
            found[key] = []
        elif key and line.strip():
            found[key] += line.split()
    return found


def numbers(table, key):
    return [float(word) for word in table[key]]


def polynomials(table, key, degree):
    """Return the polynomials in x and y under a key, one after the other."""
    names = [f"c{i}_{j}" for i in range(degree + 1) for j in range(degree + 1 - i)]
    rows = np.reshape(numbers(table, key), (-1, len(names)))
    return [
        models.Polynomial2D(degree, **dict(zip(names, row, strict=True)))
        for row in rows
    ]


def shift(values, sign=1):
    return models.Shift(sign * values[0]) & models.Shift(sign * values[1])


def homothety(table, *, inverted):
    """Return scale, rotation and shifts; or their inverse."""
    angle = np.deg2rad(numbers(table, "Rotation")[0])
    turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    matrix = np.diag(numbers(table, "Factor")) @ turn
    enter, leave = (
        numbers(table, f"{way}RotationCentre") for way in ("Input", "Output")
    )
    if inverted:
        enter, leave, matrix = leave, enter, np.linalg.inv(matrix)
    return shift(enter, -1) | models.AffineTransformation2D(matrix) | shift(leave)


def both(x, y, inputs):
    """Join two functions of the same inputs, so that the pair can be inverted."""
    twice = models.Mapping([*range(inputs)] * 2)
    twice.inverse = models.Identity(2)
    end = models.Identity(2)
    end.inverse = models.Mapping([*range(inputs)] * 2)
    return twice | (x & y) | end


def optics(path, *, chromatic=False):
    """Return a camera or collimator, from the detector towards the sky."""
    table = read_table(path)
    degree = int(numbers(table, "FitOrder")[0])

    def read(key):
        parts = polynomials(table, key, degree)
        if not chromatic:
            return parts[0]
        plane = models.Mapping((0, 1), n_inputs=3)
        slope = (plane | parts[1]) * (models.Mapping((2,)) | models.Identity(1))
        return (plane | parts[0]) + slope

    x, y = (read(f"{axis}BackwardCoefficients") for axis in "xy")
    x.inverse, y.inverse = (read(f"{axis}ForwardCoefficients") for axis in "xy")
    plain = homothety(table, inverted=True)
    if chromatic:
        plain.inverse = homothety(table, inverted=True).inverse & models.Identity(1)
    return both(x, y, 3 if chromatic else 2) | plain


def detectors(path):
    table, found = read_table(path), {}
    for name, chip, sign in (("nrs1", "SCA491", 1), ("nrs2", "SCA492", -1)):
        width, height, x, y, angle = (
            numbers(table, f"{chip}_{key}")[0]
            for key in ("PitchX", "PitchY", "PosX", "PosY", "RotAngle")
        )
        turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix = turn @ np.diag([sign * width, sign * height])
        model = models.AffineTransformation2D(matrix) | shift((x, y))
        back = models.AffineTransformation2D(np.linalg.inv(matrix))
        model.inverse = shift((x, y), -1) | back
        found[f"{name}_model"] = model
    return found


def slices(folder):
    found = {}
    for number in range(30):
        table = read_table(folder / f"IFU-POST_{number}.pcf")
        degree = int(numbers(table, "FitOrder")[0])
        plain = {"linear": homothety(table, inverted=False)}
        for axis in "xy":
            pair = polynomials(table, f"{axis}ForwardCoefficients", degree)
            plain[f"{axis}poly"], plain[f"{axis}poly_distortion"] = pair
        found[f"slice_{number}"] = plain
    return found


def prism(folder):
    """Return what the pipeline wants to know of the disperser."""
    table = read_table(folder / "disperser_PRISM.pri")

    def tilt(axis):
        sensor = read_table(folder / f"disperser_PRISM_Tilt{axis}.gtp")
        slope = numbers(sensor, "CoeffsTemperature00")[::-1]
        names = {f"c{power}": value for power, value in enumerate(slope)}
        return {
            "tilt_model": models.Polynomial1D(len(slope) - 1, **names),
            "temperatures": numbers(sensor, "Temperatures"),
            "zeroreadings": numbers(sensor, "Zeroreadings"),
            "unit": sensor["Unit"][0],
        }

    sellmeier = numbers(table, "COEFFORMULA")
    angles = {
        f"theta_{axis}": numbers(table, f"THETA{axis.upper()}")[0] / 3600
        for axis in "xyz"
    }
    # The sensor named after an axis of the wheel tells the turn about the other.
    return angles | {
        "angle": numbers(table, "ANGLE")[0],
        "gwa_tiltx": tilt("Y"),
        "gwa_tilty": tilt("X"),
        "kcoef": sellmeier[::2],
        "lcoef": sellmeier[1::2],
        "tcoef": numbers(table, "THERMALCOEF"),
        "pref": numbers(table, "PREF")[0],
        "tref": numbers(table, "TREF")[0],
    }, {"tilt_x": 0.0, "tilt_y": numbers(table, "TILTY")[0]}


def describe(model, kind, **more):
    """Give a reference file the header that its schema asks for."""
    meta = model.meta
    meta.author, meta.description, meta.pedigree = "tests", kind, "GROUND"
    meta.useafter, meta.reftype = "2022-06-01T00:00:00", kind
    meta.instrument.name, meta.telescope = "NIRSPEC", "JWST"
    for key, value in more.items():
        place = meta
        *path, last = key.split("__")
        for name in path:
            place = getattr(place, name)
        setattr(place, last, value)
    return model


def geometry(esa):
    """Yield the reference files of the world coordinates: kind and model."""
    from astropy import units as u
    from stdatamodels.jwst import datamodels as dm

    bend, parts = esa / "CoordTransform", esa / "Description"
    yield "camera", dm.CameraModel(model=optics(bend / "Camera.pcf"))
    collimator = optics(bend / "Collimator_IFU.pcf")
    yield "collimator", dm.CollimatorModel(model=collimator)
    degrees = models.Scale(3600.0) & models.Scale(3600.0)
    ote = dm.OTEModel(model=optics(bend / "OTE.pcf") | degrees)
    ote.meta.output_units = "arcsec"
    yield "ote", ote
    fore = dm.FOREModel(model=optics(bend / "Fore_CLEAR.pcf", chromatic=True))
    fore.meta.instrument.filter = "CLEAR"
    yield "fore", fore
    ifu = optics(bend / "IFU" / "IFU_FORE.pcf", chromatic=True)
    yield "ifufore", dm.IFUFOREModel(model=ifu)
    plane = dm.FPAModel()
    for name, model in detectors(parts / "FPA.fpa").items():
        setattr(plane, name, model)
    yield "fpa", plane
    with fits.open(parts / "IFU_slicer.sgd") as hdus:
        header = hdus[1].header
        rows = np.array([tuple(float(v) for v in row) for row in hdus[1].data])
    turn = models.Rotation2D(np.rad2deg(header["ROT"]))
    slicer = turn | shift((header["XREF"], header["YREF"]))
    yield "ifuslicer", dm.IFUSlicerModel(model=slicer, data=rows)
    yield "ifupost", dm.IFUPostModel(slice_models=slices(bend / "IFU"))
    known, tilts = prism(parts)
    disperser = dm.DisperserModel(**known)
    disperser.tilt_x, disperser.tilt_y = tilts["tilt_x"], tilts["tilt_y"]
    disperser.wbound = numbers(read_table(parts / "disperser_PRISM.pri"), "WBOUND")
    disperser.meta.instrument.grating = "PRISM"
    disperser.meta.exposure.type = "N/A"
    yield "disperser", disperser
    reach = dm.WavelengthrangeModel(
        wrange_selector=["CLEAR_PRISM"], wrange=[[6e-7, 5.3e-6]], order=[0]
    )
    reach.meta.wavelength_units = u.m
    reach.meta.instrument.p_detector = "NRS1|NRS2|"
    reach.meta.exposure.p_exptype = "NRS_IFU|"
    yield "wavelengthrange", reach
    # Not Identity(3): it is its own inverse, and the pipeline makes a loop of it.
    nothing = models.Shift(0.0) & models.Shift(0.0) & models.Identity(1)
    yield "chromcorr", dm.ChromCorrModel(model=nothing)


def radiometry():
    """Yield the reference files of fluxes and noise: kind and model."""
    from stdatamodels.jwst import datamodels as dm

    kind = np.dtype(
        [("filter", "S12"), ("grating", "S15"), ("photmj", "f4"), ("uncertainty", "f4"),
         ("nelem", "i2"), ("wavelength", "f4", (150,)), ("relresponse", "f4", (150,)),
         ("reluncertainty", "f4", (150,))]
    )  # fmt: skip
    row = (b"CLEAR", b"PRISM", PHOTMJ, 0, 150, WAVE, RESPONSE, 0 * WAVE)
    photom = dm.NrsMosPhotomModel()
    photom.phot_table = np.array([row], dtype=kind)
    photom.meta.photometry.pixelarea_steradians = PIXEL * ARCSEC2
    photom.meta.photometry.pixelarea_arcsecsq = PIXEL
    yield "photom", photom
    area = dm.NirspecIfuAreaModel()
    area.area_table = np.array(
        [(k, PIXEL) for k in range(30)], dtype=[("slice_id", "i2"), ("pixarea", "f4")]
    )
    yield "area", area
    yield "gain", dm.GainModel(data=np.ones(SHAPE, "f4"))
    yield "readnoise", dm.ReadnoiseModel(data=np.full(SHAPE, READ_NOISE, "f4"))


def cube_parameters(path):
    """Write the table that says how wide voxels are."""

    def table(name, **columns):
        made = [
            fits.Column(key.upper(), "8A" if isinstance(v[0], str) else "E", array=v)
            for key, v in columns.items()
        ]
        return fits.BinTableHDU.from_columns(made, name=name)

    prism = {"disperser": ["PRISM"], "filter": ["CLEAR"]}
    ball = {"roispatial": [0.2], "roispectral": [0.011]}
    soft = {"power": [2.0], "softrad": [0.01]}
    wave = np.arange(0.6, 5.3, 0.005)
    voxel = {"spaxelsize": [0.1], "spectralstep": [0.005]}
    every = {key: np.full(len(wave), v[0]) for key, v in (ball | soft).items()}
    first = fits.PrimaryHDU()
    first.header.update(
        REFTYPE="CUBEPAR", INSTRUME="NIRSPEC", TELESCOP="JWST", EXP_TYPE="NRS_IFU",
        AUTHOR="tests", DESCRIP="cubepar", PEDIGREE="GROUND",
        USEAFTER="2022-06-01T00:00:00",
    )  # fmt: skip
    tables = [
        table("CUBEPAR", **prism, wavemin=[0.6], wavemax=[5.3], **voxel),
        table("CUBEPAR_MSM", **prism, **ball, **soft),
        table("MULTICHAN_PRISM_MSM", wavelength=wave, **every),
        table("CUBEPAR_EMSM", **prism, **ball, scalerad=[0.1]),
    ]
    for name in ("PRISM", "MED", "HIGH"):
        tables.append(table(f"MULTICHAN_{name}_DRIZZLE", wavelength=wave))
    fits.HDUList([first, *tables]).writeto(path)

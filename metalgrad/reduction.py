"""From the archive to the cube, as Venturi et al. (2024, Sect. 2.1) did it."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from astropy.io import fits
from tqdm import tqdm

from metalgrad import archive, associations, pipelines
from metalgrad.flagging import flag_outliers
from metalgrad.ledger import Ledger

STEPS = ("download", "detector1", "spec2", "spec3", "clip")
# Cubes and spectra of single exposures are not looked at; no spectrum is extracted
# of a resolved galaxy.
UNUSED = {"skip": True}


def reduce(
    target,
    out: str | Path,
    *,
    program: int = 1893,
    steps=STEPS,
    version: str = "",
    context: str = "",
    background: bool = True,
    spaxel: float = 0.05,
    clip: float = 5.0,
    parameters: dict | None = None,
    quiet: bool = False,
) -> Path:
    """Reduce the NIRSpec IFU exposures of a galaxy to a cube.

    The five steps are: "download" from MAST; "detector1", ramps to count rates;
    "spec2", calibration, with the dedicated background exposures subtracted on the
    detector; "spec3", outlier rejection and the cube, drizzled; "clip", which flags
    voxels that no fit of their spectrum can explain.  What is there already is not
    made again, so a reduction that was killed goes on.

    Parameters
    ----------
    target : Target
        With a position.
    out : path
        Folder for all products: ``uncal``, ``rate``, ``cal``, ``s3d``, and the cube.
    program : int
        Number of the JWST programme.
    steps : sequence of str
        Which to take, of those above.
    version, context : str
        That the pipeline and its reference files must have; those that are there by
        default.  The paper: 1.11 and jwst_1094.pmap.
    background : bool
        Subtract the background.
    spaxel : float
        Side of a spaxel [arcsec].
    clip : float
        Limit of the clipping [robust standard deviations]; not said in the paper.
    parameters : dict, optional
        Of the pipeline's steps: stage, step, parameter, as in
        ``{"spec3": {"outlier_detection": {"threshold_percent": 99.5}}}``.
    quiet : bool
        Show no progress.

    Returns
    -------
    Path
        The cube, ``NAME_s3d.fits``, or the folder where ``steps`` end before it.

    Raises
    ------
    ValueError
        If an argument is wrong, ``out`` holds a reduction with others, exposures are
        missing, or the background could not be subtracted.
    OSError
        If the archive or CRDS cannot be reached.
    """
    out = Path(out)
    _check(target, steps, parameters)
    settings = _settings(spaxel, parameters)
    about = {"target": target.name, "program": str(program)}
    about |= {"background": str(background), "clip": str(clip)}
    about |= {"parameters": json.dumps(settings, sort_keys=True)}
    job = _Job(out, Ledger(out / "reduction.jsonl", about, "product"), settings, quiet)
    if "download" in steps:
        rows = archive.find_exposures(target.position, program=program)
        archive.download(rows, out / "uncal", quiet=quiet)
    if {"detector1", "spec2", "spec3"} & {*steps}:
        job.settle(version, context)
    if "detector1" in steps:
        _detector1(job)
    if "spec2" in steps:
        _spec2(job, background)
    if "spec3" in steps:
        _spec3(job, target.name)
    if "clip" not in steps:
        return out
    return _clip(job, target, {"MGPROG": program, "MGBKGSUB": background}, clip)


class _Job:
    """One reduction: where, with what, and what has been made."""

    def __init__(self, out, ledger, settings, quiet):
        self.out, self.ledger, self.settings = out, ledger, settings
        self.quiet, self.made_with = quiet, {}
        out.mkdir(parents=True, exist_ok=True)

    def settle(self, version, context):
        """Find out the pipeline's version and context; refuse to mix two."""
        version, context = pipelines.settle(version, context)
        self.made_with = {"jwst": version, "context": context}
        for entry in self.ledger.entries.values():
            for key, value in self.made_with.items():
                if entry.get(key, value) != value:
                    raise ValueError(
                        f"{self.out / entry['product']} was made with {key} "
                        f"{entry[key]}, and now it is {value}; give another folder, or "
                        f"the same {key}"
                    )

    def bar(self, paths, stage):
        """Show progress over what is still to be made."""
        missing = [path for path in paths if not path.exists()]
        return tqdm(missing, desc=stage, unit="exposure", disable=self.quiet)

    def make(self, stage, source, path, suffix):
        """Run a stage aside, and move its one product into place."""
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=".new-"))
        try:
            pipelines.run(
                stage,
                source,
                aside,
                context=self.made_with["context"],
                parameters=self.settings[stage],
                log=self.out / "reduction.log",
            )
            found = sorted(aside.glob(f"*_{suffix}.fits"))
            if len(found) != 1:
                names = ", ".join(f.name for f in sorted(aside.iterdir())) or "nothing"
                raise ValueError(
                    f"stage {stage} made {names} of {source} where one *_{suffix}.fits "
                    f"is expected; see {self.out / 'reduction.log'}"
                )
            self.verify(stage, found[0])
            os.replace(found[0], path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        name = str(path.relative_to(self.out))
        self.ledger.add({"product": name, "stage": stage, **self.made_with})

    def verify(self, stage, path):
        """Refuse an exposure whose background the pipeline left in without a word."""
        if stage != "spec2" or self.settings["spec2"].get("bkg_subtract") == UNUSED:
            return
        status = fits.getval(path, "S_BKDSUB")
        if status != "COMPLETE":
            raise ValueError(
                f"the background of {path.name} was not subtracted (S_BKDSUB is "
                f"{status}): most often the grating wheel stood elsewhere in the "
                f"background exposure; see {self.out / 'reduction.log'}, or keep the "
                "background (--no-background)"
            )


def _detector1(job):
    raw = _there(job.out / "uncal", "_uncal", "download")
    rates = {job.out / "rate" / _renamed(path, "rate"): path for path in raw}
    for path in job.bar(rates, "detector1"):
        job.make("detector1", rates[path], path, "rate")


def _spec2(job, background):
    rates = _there(job.out / "rate", "_rate", "detector1")
    lists = associations.spec2(
        associations.read_exposures(rates), background=background
    )
    if not background:
        job.settings["spec2"]["bkg_subtract"] = UNUSED
    paths = {job.out / "cal" / f"{name}_cal.fits": name for name in lists}
    for path in job.bar(paths, "spec2"):
        name = paths[path]
        asn = job.out / "rate" / f"{name}_spec2_asn.json"
        job.make("spec2", associations.write(lists[name], asn), path, "cal")


def _spec3(job, name):
    exposures = associations.read_exposures(_there(job.out / "cal", "_cal", "spec2"))
    asn = job.out / "cal" / f"{name}_spec3_asn.json"
    for path in job.bar([job.out / "s3d" / f"{name}_s3d.fits"], "spec3"):
        association = associations.spec3(exposures, name)
        job.make("spec3", associations.write(association, asn), path, "s3d")


def _clip(job, target, cards, limit):
    path = job.out / f"{target.name}_s3d.fits"
    if not path.exists():
        (source,) = _there(job.out / "s3d", f"{target.name}_s3d", "spec3")
        count = flag_outliers(source, path, target, limit=limit, cards=cards)
        job.ledger.add({"product": path.name, "stage": "clip", "clipped": count})
    return path


def _check(target, steps, parameters):
    if target.position is None:
        raise ValueError(
            f"target {target.name} has no position to look for in the archive; give it "
            "(--center)"
        )
    for what, names, known in (
        ("steps", steps, STEPS),
        ("parameters", parameters or {}, tuple(pipelines.STAGES)),
    ):
        wrong = [name for name in names if name not in known]
        if wrong:
            raise ValueError(
                f"{what} has {', '.join(wrong)}, which is none of {', '.join(known)}"
            )


def _settings(spaxel, parameters):
    """Parameters of the pipeline's steps: those of the paper, then the user's."""
    settings = {
        "detector1": {},
        "spec2": {"cube_build": UNUSED, "extract_1d": UNUSED},
        "spec3": {
            "cube_build": {"weighting": "drizzle", "scalexy": spaxel},
            "extract_1d": UNUSED,
        },
    }
    for stage, steps in (parameters or {}).items():
        for step, values in steps.items():
            settings[stage][step] = settings[stage].get(step, {}) | values
    return settings


def _there(folder, ending, step):
    """Find what the step before has left."""
    found = sorted(folder.glob(f"*{ending}.fits"))
    if not found:
        raise ValueError(
            f"{folder} has no *{ending}.fits; take the step {step} first, or put them "
            "there"
        )
    return found


def _renamed(path, suffix):
    return f"{path.name.removesuffix('_uncal.fits')}_{suffix}.fits"

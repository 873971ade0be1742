"""The door to the jwst pipeline: its stages, its version and its reference files."""

import logging
import os
import warnings
from contextlib import contextmanager
from pathlib import Path

STAGES = {
    "detector1": "Detector1Pipeline",
    "spec2": "Spec2Pipeline",
    "spec3": "Spec3Pipeline",
}
# Where STScI serves reference files to the public, by the manual of CRDS.
SERVER = "https://jwst-crds.stsci.edu"


def settle(version: str = "", context: str = "") -> tuple[str, str]:
    """Return the version of the pipeline and the context of its reference files.

    Parameters
    ----------
    version : str
        That the pipeline must have; any by default.
    context : str
        Of CRDS, such as "jwst_1094.pmap"; the environment's or the server's by default.

    Raises
    ------
    ValueError
        If the pipeline is missing, or has another version.
    OSError
        If CRDS cannot say which context to use.
    """
    try:
        import jwst
        from stpipe import crds_client
    except ImportError as error:
        raise ValueError(
            f"the jwst pipeline is not there ({error}); install metalgrad[reduction]"
        ) from error
    if version and jwst.__version__ != version:
        raise ValueError(
            f"version {jwst.__version__} of the jwst pipeline is installed where "
            f"{version} is asked for; pip install jwst=={version}, or ask for the other"
        )
    with _context(context), _translated():
        return jwst.__version__, str(crds_client.get_context_used("jwst"))


def run(stage, source, folder, *, context="", parameters=None, log=None) -> None:
    """Run one stage of the pipeline, and let it write to a folder.

    Parameters
    ----------
    stage : str
        "detector1", "spec2" or "spec3".
    source : path
        A raw exposure, or an association.
    folder : path
        That is there.
    context : str
        Of CRDS.
    parameters : dict of dict
        Of the pipeline's steps, by their names.
    log : path, optional
        What the pipeline says goes there, instead of to the screen.

    Raises
    ------
    OSError
        If reference files cannot be had.
    RuntimeError
        Of the pipeline.
    """
    with _context(context), _translated(), _logged(log):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries, about each other
            from jwst import pipeline

        getattr(pipeline, STAGES[stage]).call(
            str(source),
            steps=parameters or {},
            output_dir=str(folder),
            save_results=True,
            configure_log=log is None,
        )


@contextmanager
def _context(name):
    """Let CRDS use a context, and put the environment back."""
    before = os.environ.get("CRDS_CONTEXT")
    if name:
        os.environ["CRDS_CONTEXT"] = name
    try:
        yield
    finally:
        os.environ.pop("CRDS_CONTEXT", None)
        if before is not None:
            os.environ["CRDS_CONTEXT"] = before


@contextmanager
def _translated():
    """Say what to do where CRDS fails, which it does in three ways."""
    try:
        yield
    except SystemExit as error:  # what CRDS does without server and cache
        raise OSError(_advice(f"stopped with {error}")) from error
    except Exception as error:
        # The second stage hands on all errors as the text of their tracebacks.
        known = type(error).__module__.startswith("crds") or "crds." in str(error)
        if not known:
            raise
        raise OSError(_advice(str(error).strip().rpartition("\n")[2])) from error


def _advice(problem):
    server = os.environ.get("CRDS_SERVER_URL", "not set")
    cache = os.environ.get("CRDS_PATH", "not set")
    return (
        f"reference files cannot be had from CRDS ({problem}). Set CRDS_SERVER_URL "
        f"(it is {server}) to {SERVER} where there is a network, or CRDS_PATH (it is "
        f"{cache}) to a folder that holds those of the context; and name the context "
        "(--context jwst_NNNN.pmap, or CRDS_CONTEXT), if you mean a certain one"
    )


@contextmanager
def _logged(path):
    """Write what is logged, and warnings, to a file; leave the screen alone."""
    if path is None:
        yield
        return
    root, level = logging.getLogger(), logging.getLogger().level
    file = logging.FileHandler(Path(path), encoding="utf-8")
    file.setFormatter(
        logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s")
    )
    before, root.handlers = root.handlers, [file]
    root.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.handlers = before
        root.setLevel(level)
        file.close()

"""Raw NIRSpec IFU exposures from the archive of JWST, MAST.

Venturi et al. (2024, Sect. 2.1) start from the raw data.  What there is, astroquery
asks the archive; files are fetched so that a download that was cut goes on.
"""

import os
import re
import warnings
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table, vstack
from tqdm import tqdm

from metalgrad.headers import BLOCK

CHUNK = 2**20  # bytes
TIMEOUT = 60  # s without a byte
ITS_OWN = 500  # status from which a failure is the server's, and may pass
SUMS = re.compile(r"(Checksum|Datasum) verification failed")  # Astropy's words
RAW = re.compile(r"jw\d{5}\d{6}_\d{5}_\d{5}(-seg\d+)?_(nrs[12])_uncal\.fits")


def find_exposures(
    position, *, program: int = 1893, radius: float = 0.2, detector: str = "nrs1"
) -> Table:
    """Ask the archive for the raw NIRSpec IFU exposures near a position.

    Those of the sky beside the galaxy are among them, if they are within ``radius``
    and of the same programme; their headers tell which they are.

    Parameters
    ----------
    position : SkyCoord
        Of the galaxy.
    program : int
        Number of the JWST programme.
    radius : float
        Around the position [deg]; astroquery's own by default.
    detector : str
        "nrs1", where all of the prism's light falls in IFU mode; "" for both.

    Returns
    -------
    Table
        ``name``, ``uri`` and ``size`` [bytes] of each file, by name.

    Raises
    ------
    ValueError
        If astroquery is missing, or the archive has no such exposures.
    OSError
        If the archive cannot be reached.
    """
    mast = _astroquery()
    where = f"programme {program} within {radius} deg of {position.to_string()}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of no results, which is told below
            found = mast.Observations.query_criteria(
                obs_collection="JWST",
                instrument_name="NIRSPEC/IFU",
                proposal_id=str(program),
                coordinates=position,
                radius=f"{radius} deg",
            )
            lists = [mast.Observations.get_product_list(found)] if len(found) else []
    except OSError as error:
        raise OSError(
            f"the archive {mast.conf.server} cannot be reached ({error}); try again, "
            "or put the raw files (*_uncal.fits) into the folder uncal of --out and "
            "leave the step download out (--steps detector1,spec2,spec3,clip)"
        ) from error
    products = vstack(lists) if lists else Table(names=["productFilename"])
    rows = {
        str(row["productFilename"]): (str(row["dataURI"]), int(row["size"]))
        for row in products
        if _is_raw(str(row["productFilename"]), detector)
    }
    if not rows:
        raise ValueError(
            f"{mast.conf.server} has no raw NIRSpec IFU exposures of {where} "
            f"({len(found)} observations); check the programme and the position"
        )
    table = Table({"name": sorted(rows)})
    table["uri"] = [rows[name][0] for name in table["name"]]
    table["size"] = [rows[name][1] for name in table["name"]]
    return table


def download(
    exposures: Table, folder: str | Path, *, attempts: int = 5, quiet: bool = False
) -> list[Path]:
    """Fetch exposures; go on with what was cut, and leave alone what is there.

    A file grows as ``NAME.part`` and gets its name when it has the size that the
    archive lists, is a FITS file, and agrees with its checksums, if it has any.

    Parameters
    ----------
    exposures : Table
        From ``find_exposures``.
    folder : path
        Made, if it is not there.
    attempts : int
        How often a file is asked for, if the connection breaks.
    quiet : bool
        Show no progress.

    Returns
    -------
    list of path
        A file for each row.

    Raises
    ------
    ValueError
        If a file is not as the archive lists it.
    OSError
        If the connection breaks for good; call again to go on.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    server, paths = _astroquery().conf.server, []
    total = int(np.sum(exposures["size"]))
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="download", disable=quiet
    ) as bar:
        for row in exposures:
            path, size = folder / row["name"], int(row["size"])
            paths.append(path)
            if path.exists():
                _refuse_size(path, path.stat().st_size, size)
                bar.update(size)
                continue
            url = f"{server}/api/v0.1/Download/file?uri={row['uri']}"
            part = path.with_name(f"{path.name}.part")
            _fetch(url, part, size, attempts, bar)
            _inspect(part, size)
            os.replace(part, path)
    return paths


def _astroquery():
    try:
        from astroquery import mast
    except ImportError as error:
        raise ValueError(
            "astroquery is not there to ask the archive; install metalgrad[reduction]"
        ) from error
    return mast


def _is_raw(name, detector):
    match = RAW.fullmatch(name)
    return match is not None and match[2].startswith(detector)


def _fetch(url, part, size, attempts, bar):
    """Fetch until the file is whole, or the connection has broken too often."""
    import requests

    for left in reversed(range(attempts)):
        begin = part.stat().st_size if part.exists() else 0
        bar.update(begin if left == attempts - 1 else 0)
        try:
            if begin < size or not size:
                _append(url, part, begin, bar)
            return
        except requests.HTTPError as error:
            if left and error.response.status_code >= ITS_OWN:
                continue
            raise OSError(
                f"{url} is refused ({error}); if it is not public yet, fetch it with "
                f"your account and put it at {part.with_suffix('')}"
            ) from error
        except requests.RequestException as error:
            if not left:
                raise OSError(
                    f"{url} broke off {attempts} times, last with {error}; call it "
                    "again to go on"
                ) from error


def _append(url, part, begin, bar):
    """Ask for what is lacking; take all of it from a server that sends all."""
    import requests

    headers = {"Range": f"bytes={begin}-"} if begin else {}
    # A compressed answer has no size to compare with, and no place to go on from.
    headers["Accept-Encoding"] = "identity"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        goes_on = answer.status_code == requests.codes.partial_content
        if begin and not goes_on:
            bar.update(-begin)
        with part.open("ab" if goes_on else "wb") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))


def _inspect(part, size):
    """Refuse, and remove, a file that is not what was asked for."""
    try:
        _refuse_size(part, part.stat().st_size, size)
        with part.open("rb") as file:
            begins = file.read(6)
        if begins != b"SIMPLE" or part.stat().st_size % BLOCK:
            raise ValueError(f"{part} is no FITS file; call it again to fetch it anew")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            with fits.open(part, checksum=True) as hdus:
                hdus.readall()
        if damage := [str(one.message) for one in told if SUMS.match(str(one.message))]:
            raise ValueError(
                f"{part} was damaged on its way ({damage[0].strip()}); call it again "
                "to fetch it anew"
            )
    except ValueError:
        part.unlink()
        raise


def _refuse_size(path, found, size):
    if size and found != size:
        raise ValueError(
            f"{path} has {found} bytes where the archive lists {size}; remove it and "
            "call again to fetch it anew"
        )

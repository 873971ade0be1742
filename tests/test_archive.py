"""The archive: what astroquery asks, and downloads that go on where they were cut."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table

from metalgrad import archive

FIELD = SkyCoord(150.1972, 2.47865, unit="deg")
NAMES = [f"jw01893001001_02101_0000{n}_nrs1_uncal.fits" for n in (1, 2)]
OTHERS = [
    "jw01893001001_02101_00001_nrs2_uncal.fits",  # where the prism sends no light
    "jw01893001001_02101_00001_nrs1_rate.fits",
    "jw01893-o001_t001_nirspec_prism-clear_s3d.fits",
]


def content(seed):
    """A small FITS file with checksums."""
    rng = np.random.default_rng(seed)
    image = fits.ImageHDU(rng.integers(0, 2**15, (40, 50)).astype(np.uint16))
    hdus = fits.HDUList([fits.PrimaryHDU(), image])
    hdus.writeto(stream := BytesIO(), checksum=True)
    return stream.getvalue()


class Mast(BaseHTTPRequestHandler):
    """Enough of MAST for astroquery: columns, observations, products, files."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if "columnsconfig" in self.path:
            kinds = {"obs_collection": "string", "instrument_name": "string"}
            kinds["proposal_id"] = "string"
            about = {k: {"vot.datatype": "char"} for k in kinds}
            return self.say({"status": "COMPLETE", **about})
        asked = json.loads(unquote(text.removeprefix("request=")).replace("+", " "))
        self.server.asked.append(asked)
        if asked["service"] == "Mast.Caom.Products":
            rows = [
                {
                    "productFilename": name,
                    "dataURI": f"mast:JWST/product/{name}",
                    "size": len(self.server.files.get(name, b"x")),
                }
                # An exposure is listed with each product that was made of it.
                for name in [*NAMES, *OTHERS, *NAMES]
            ]
            fields = {"productFilename": "string", "dataURI": "string", "size": "int"}
        else:
            fields = {"obsid": "string", "obs_id": "string", "target_name": "string"}
            rows = [{"obsid": "87602461", "obs_id": "jw01893", "target_name": "C"}]
            rows = rows * self.server.known
        columns = [{"name": key, "type": kind} for key, kind in fields.items()]
        return self.say({"status": "COMPLETE", "fields": columns, "data": rows})

    def say(self, thing):
        text = json.dumps(thing).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        uri = parse_qs(urlparse(self.path).query)["uri"][0]
        whole = self.server.files[uri.rpartition("/")[2]]
        begin = self.headers.get("Range") if self.server.ranges else None
        begin = int(begin.removeprefix("bytes=").removesuffix("-")) if begin else 0
        self.server.begun.append(begin)
        passing = self.server.passing.pop(0) if self.server.passing else None
        status = self.server.status or passing
        self.send_response(status or (206 if begin else 200))
        self.send_header("Content-Length", str(len(whole) - begin))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else None
        self.wfile.write(whole[begin:cut])


@pytest.fixture
def mast(monkeypatch):
    """A server in place of MAST; what it was asked, and how it shall fail."""
    astroquery = pytest.importorskip("astroquery.mast")
    # What was read of a piece is lost when it breaks off within.
    monkeypatch.setattr(archive, "CHUNK", 1000)
    from astroquery.mast.discovery_portal import PortalAPI

    with ThreadingHTTPServer(("127.0.0.1", 0), Mast) as server:
        server.files = {name: content(k) for k, name in enumerate(NAMES)}
        server.asked, server.begun, server.cuts = [], [], []
        server.known, server.ranges, server.status = 1, True, None
        server.passing = []
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(PortalAPI, "MAST_REQUEST_URL", f"{url}/api/v0/invoke")
        columns = f"{url}/portal/Mashup/Mashup.asmx/columnsconfig"
        monkeypatch.setattr(PortalAPI, "COLUMNS_CONFIG_URL", columns)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with astroquery.conf.set_temp("server", url):
            yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def listed(mast):
    return Table(
        {
            "name": NAMES,
            "uri": [f"mast:JWST/product/{name}" for name in NAMES],
            "size": [len(mast.files[name]) for name in NAMES],
        }
    )


def test_the_archive_is_asked_for_raw_exposures_of_the_field(mast):
    found = archive.find_exposures(FIELD, radius=0.1)
    assert [*found["name"]] == NAMES
    assert [*found["size"]] == [len(mast.files[name]) for name in NAMES]
    question = mast.asked[0]["params"]
    assert question["position"] == "150.1972, 2.47865, 0.1"
    asked = {f["paramName"]: f["values"] for f in question["filters"]}
    assert asked == {
        "obs_collection": ["JWST"],
        "instrument_name": ["NIRSPEC/IFU"],
        "proposal_id": ["1893"],
    }
    both = archive.find_exposures(FIELD, detector="")
    assert [*both["name"]] == sorted([*NAMES, OTHERS[0]])


def test_nothing_found_is_told(mast):
    mast.known = 0
    with pytest.raises(ValueError, match="no raw NIRSpec IFU exposures of programme 7"):
        archive.find_exposures(FIELD, program=7)


def test_no_archive_is_told(mast):
    mast.shutdown()
    mast.server_close()
    with pytest.raises(
        OSError,
        match=r"cannot be reached .*put the raw files .*--steps detector1,spec2",
    ):
        archive.find_exposures(FIELD)


def test_files_come_as_they_are_and_only_once(mast, listed, tmp_path):
    for _ in range(2):
        paths = archive.download(listed, tmp_path / "raw", quiet=True)
        assert [path.read_bytes() for path in paths] == [*mast.files.values()]
    assert mast.begun == [0, 0]
    assert sorted(p.name for p in (tmp_path / "raw").iterdir()) == NAMES


def test_a_cut_download_goes_on(mast, listed, tmp_path):
    mast.cuts = [3000]
    paths = archive.download(listed, tmp_path, quiet=True)
    assert [path.read_bytes() for path in paths] == [*mast.files.values()]
    assert mast.begun == [0, 3000, 0]


def test_a_later_call_goes_on_too(mast, listed, tmp_path):
    mast.cuts = [2000, 5000]
    with pytest.raises(OSError, match=r"00001_nrs1_uncal.fits broke off 2 times"):
        archive.download(listed, tmp_path, attempts=2, quiet=True)
    assert (tmp_path / f"{NAMES[0]}.part").stat().st_size == 5000
    assert not (tmp_path / NAMES[0]).exists()
    path, _ = archive.download(listed, tmp_path, quiet=True)
    assert path.read_bytes() == mast.files[NAMES[0]]
    assert mast.begun == [0, 2000, 5000, 0]


def test_a_server_that_knows_no_ranges_starts_again(mast, listed, tmp_path):
    mast.ranges, mast.cuts = False, [3000]
    path, _ = archive.download(listed, tmp_path, quiet=True)
    assert path.read_bytes() == mast.files[NAMES[0]]
    assert mast.begun == [0, 0, 0]


def test_a_wrong_size_is_named(mast, listed, tmp_path):
    listed["size"][0] += 2880
    with pytest.raises(ValueError, match=r"00001_nrs1.* has \d+ bytes where .* lists"):
        archive.download(listed, tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())
    (tmp_path / NAMES[0]).write_bytes(b"short")
    with pytest.raises(ValueError, match="has 5 bytes where the archive lists"):
        archive.download(listed, tmp_path, quiet=True)


@pytest.mark.parametrize(
    ("damage", "words"),
    [(lambda raw: raw[:-3000] + b"!" + raw[-2999:], "damaged on its way"),
     (lambda raw: b"<html>" + raw[6:], "no FITS file")],
)  # fmt: skip
def test_a_damaged_file_is_not_kept(mast, listed, tmp_path, damage, words):
    mast.files[NAMES[0]] = damage(mast.files[NAMES[0]])
    with pytest.raises(ValueError, match=words):
        archive.download(listed, tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_refusal_is_told(mast, listed, tmp_path):
    mast.status = 401
    with pytest.raises(OSError, match=r"is refused \(401.*not public yet"):
        archive.download(listed, tmp_path, quiet=True)


def test_a_server_in_trouble_is_asked_again(mast, listed, tmp_path):
    mast.passing = [503, 502]
    paths = archive.download(listed[:1], tmp_path, quiet=True)
    assert paths[0].read_bytes() == mast.files[NAMES[0]]
    mast.status = 503
    with pytest.raises(OSError, match=r"is refused \(503"):
        archive.download(listed[1:2], tmp_path, quiet=True, attempts=2)


def test_without_astroquery_there_is_a_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "astroquery", None)
    with pytest.raises(ValueError, match=r"install metalgrad\[reduction\]"):
        archive.find_exposures(FIELD)

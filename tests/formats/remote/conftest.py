import time

import pytest
import web_server
from fetched_files import CONTENT

from edgeprune_formats import verify_pack
from edgeprune_formats.packs import remote as far
from edgeprune_formats.remote import receive


@pytest.fixture(scope="module")
def running():
    server = web_server.WebServer()
    yield server
    server.stop()


@pytest.fixture
def server(running, tmp_path):
    running.begin_anew()
    running.files["/p.h5"] = CONTENT

    def written(place):
        """Wait until what was sent is on the disk: what a client has not read is lost by a cut."""
        for _ in range(200):
            if sum(part.stat().st_size for part in tmp_path.glob("cache/urls/*.part")) >= place:
                return
            time.sleep(0.01)

    running.at_cut = written
    return running


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache, with tries that do not wait."""
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(receive, "PAUSES", (0.0,) * 3)
    return tmp_path / "cache"


@pytest.fixture
def checks(monkeypatch):
    """Verify in this process, in place of one for each test; give the files that were verified."""
    seen = []

    def examine(path, *, verify):
        assert verify
        seen.append(path)
        return verify_pack(path)

    monkeypatch.setattr(far, "examine", examine)
    return seen

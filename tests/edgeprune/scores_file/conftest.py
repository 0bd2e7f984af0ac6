import shutil

import pytest
from scores_files import content, put_in_group, write

from edgeprune.scoring import scores_file


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """Of version 1, which has everything that version 2 has, and more data sets to damage."""
    path = tmp_path_factory.mktemp("pristine") / "s.h5"
    write(path, content())
    put_in_group(path, content().classifier)
    return path


@pytest.fixture(autouse=True)
def trusted(request, monkeypatch):
    """Leaves out the look at how a file is stored, which most tests here damage by h5py."""
    if "untrusted" not in request.fixturenames:
        monkeypatch.setattr(scores_file, "require_safe", lambda path, isolated: None)


@pytest.fixture
def untrusted():
    """Leaves the look at how a file is stored where it is."""


@pytest.fixture
def second(tmp_path):
    """A sound scores file of version 2."""
    write(tmp_path / "second.h5", content())
    return tmp_path / "second.h5"


@pytest.fixture
def sample(pristine, tmp_path):
    """A sound scores file, for the test to damage."""
    return shutil.copy(pristine, tmp_path / "s.h5")

"""Write the malformed files of tests/formats, and what Python says of each: make_malformed.py FOLDER.

The tests themselves make the files: where a test asks that a file be refused, a plugin of pytest copies the
file and notes the kind and the place of the error that the test expects, in place of reading it.
"""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from edgeprune_formats import (
    NotAPackError,
    PackChecksumError,
    PackFormatError,
    PackLayoutError,
    PackLimitError,
    PackVersionError,
    open_pack,
)
from edgeprune_formats.files import atomic_hdf5
from edgeprune_formats.structure import why_not_plain

TESTS = Path(__file__).parents[1]
MODULES = (
    "hostile_attributes",
    "hostile_content",
    "hostile_datasets",
    "foreign_files",
    "bounds",
    "limits",
    "structure",
)
# Their tests open packs in ways of their own.
OPENING = ("targets", "planes")
KINDS = {
    NotAPackError: "not-a-pack",
    PackVersionError: "version",
    PackLayoutError: "layout",
    PackLimitError: "limit",
    PackChecksumError: "checksum",
}
MAX_SIZE = 2**22
# Tests that take long and make no file, or that change a bound.
LEFT_OUT = ("c_and_numpy", "memory", "any_length", "before_they_are_read", "states", "eight_images")


class Recorder:
    """Copies each file that a test looks at, in place of the look."""

    def __init__(self, folder):
        self.folder, self.files, self.test = folder, [], ""

    @pytest.fixture(autouse=True)
    def recorded(self, tools, request, monkeypatch):
        self.test = f"{request.module.__name__.removeprefix('test_')}: {request.node.name}"
        monkeypatch.setattr(tools, "assert_refused", self.refused)
        if hasattr(request.module, "why_not_plain"):
            monkeypatch.setattr(request.module, "why_not_plain", self.why_not_plain)
        if request.path.stem.removeprefix("test_") in OPENING:
            monkeypatch.setattr(request.module, "open_pack", self.open_pack)

    def refused(self, path, kind, location, *words):
        self.keep(path, kind=KINDS[kind], location=location.partition(":")[0])
        return SimpleNamespace(problem=None)

    def open_pack(self, path, **options):
        """Note whether all of a pack can be read, and open it."""
        try:
            with open_pack(path, **options) as pack:
                for chunk in range(pack.header.chunks):
                    pack.read_chunk(chunk)
                for target in pack.targets.values():
                    target.read()
        except PackFormatError as error:
            self.keep(path, kind=error.problem.kind, location=error.problem.location)
        else:
            self.keep(path, sound=True)
        return open_pack(path, **options)

    def why_not_plain(self, path):
        self.keep(path)
        return why_not_plain(path)

    def keep(self, path, **expected):
        if path.stat().st_size > MAX_SIZE:
            return
        self.note(path, expected)
        if "kind" in expected and why_not_plain(path):
            again = self.folder / "again.h5"
            if stored_plainly(path, again):
                self.note(again, expected)
            again.unlink(missing_ok=True)

    def note(self, path, expected):
        name = f"{len(self.files)}.h5"
        shutil.copy(path, self.folder / name)
        facts = {"name": name, "test": self.test, "plain": why_not_plain(path) is None}
        self.files.append(facts | expected)


def stored_plainly(path, to):
    """Store what a file holds as packs are stored, where that can be; h5py leaves most of them otherwise."""
    try:
        with h5py.File(path, "r") as old, atomic_hdf5(to) as new:
            for name in old:
                if not isinstance(old.get(name, getlink=True), h5py.HardLink):
                    return False
                old.copy(name, new)
            for name in old.attrs:
                new.attrs.create(name, old.attrs[name], dtype=old.attrs.get_id(name).dtype)
    except (OSError, TypeError, ValueError, KeyError, RuntimeError):
        return False
    return why_not_plain(to) is None


def main(folder):
    recorder = Recorder(folder)
    wanted = {f"test_{name}.py" for name in (*MODULES, *OPENING)}
    modules = [str(path) for path in sorted(TESTS.glob("test_*.py")) if path.name in wanted]
    kept = " and ".join(f"not {word}" for word in LEFT_OUT)
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore", "-k", kept]
    options += ["--rootdir", str(TESTS.parents[1])]
    code = pytest.main([*options, *modules], plugins=[recorder])
    if code != pytest.ExitCode.OK:
        sys.exit("the tests that make the files fail")
    (folder / "malformed.json").write_text(json.dumps(recorder.files))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

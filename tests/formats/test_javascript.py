"""The reader in JavaScript: its own tests, where `make js` has installed what they need."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune_formats import __version__

PACKAGE = Path(__file__).parents[2] / "formats" / "js"
FACTS = json.loads((PACKAGE / "package.json").read_text())


def test_version_and_license_are_those_of_the_project():
    assert (FACTS["version"], FACTS["license"]) == (__version__, "Apache-2.0")


def test_no_place_to_download_from_is_kept():
    assert not list(PACKAGE.glob("*lock*"))
    assert "package-lock=false" in (PACKAGE / ".npmrc").read_text()


def npm(*words):
    command = ["npm", "--offline", *words]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, cwd=PACKAGE, env=environment, capture_output=True, text=True, check=False)
    failed = "\n".join(re.findall(r"^not ok.*(?:\n +.*)*", done.stdout, re.MULTILINE))
    assert done.returncode == 0, failed or done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@pytest.fixture(scope="module")
def built():
    if shutil.which("npm") is None:
        pytest.skip("no npm here")
    if not (PACKAGE / "node_modules").exists():
        pytest.skip("formats/js/node_modules is not there; make js installs it")
    npm("run", "build")


@pytest.mark.slow
def test_the_reader_in_javascript(built):
    assert "not ok" not in npm("test")


@pytest.mark.slow
def test_the_package_holds_the_library_and_nothing_else(built):
    (packed,) = json.loads(npm("pack", "--dry-run", "--json", "--silent"))
    files = {one["path"] for one in packed["files"]}
    assert {"package.json", "LICENSE", "README.md", "dist/index.js", "dist/index.d.ts"} <= files
    assert {Path(name).parts[0] for name in files} == {"package.json", "LICENSE", "README.md", "dist"}
    assert {Path(name).suffix for name in files if name.startswith("dist/")} == {".js", ".ts"}
    assert packed["size"] < 100_000

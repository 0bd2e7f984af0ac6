"""Virtual environments without a network: of what is installed here already, or of empty distributions."""

import os
import subprocess
import venv
import zipfile
from importlib.metadata import distribution, distributions
from pathlib import Path

import pip
from packaging.requirements import Requirement


class Environment:
    """A virtual environment without pip, which the pip of this environment serves."""

    def __init__(self, place):
        venv.create(place, with_pip=False, symlinks=True)
        self.python = place / "bin" / "python"
        (self.site,) = place.glob("lib/python*/site-packages")
        # Nothing of this environment gets in, and pip reads no settings of this machine.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
        self._variables = {**kept, "PIP_CONFIG_FILE": os.devnull}

    def run(self, *command, cwd=None):
        """Run a command of the environment, or python where the first word begins with a dash."""
        program = [self.python] if command[0].startswith("-") else []
        words = [str(word) for word in (*program, *command)]
        if not program:
            words[0] = str(self.python.parent / words[0])
        return subprocess.run(
            words, cwd=cwd, env=self._variables, capture_output=True, text=True, timeout=300
        )

    def pip(self, *arguments):
        """Install, from files alone."""
        # As ``pip --python`` goes on, after it has started once for nothing.
        runner = Path(pip.__file__).with_name("__pip-runner__.py")
        words = [
            str(self.python),
            str(runner),
            "--isolated",
            "install",
            "--no-index",
            "--disable-pip-version-check",
            *map(str, arguments),
        ]
        return subprocess.run(words, env=self._variables, capture_output=True, text=True, timeout=300)

    def installed(self):
        """Return the versions of the distributions, by name."""
        return {found.name.lower(): found.version for found in distributions(path=[str(self.site)])}

    def unpack(self, wheel):
        """Install a wheel of files alone, faster than pip does."""
        zipfile.ZipFile(wheel).extractall(self.site)

    def link(self, *names):
        """Let in distributions that are installed here, and those that they need."""
        todo, done = list(names), set()
        while todo:
            name = todo.pop()
            if name in done:
                continue
            done.add(name)
            found = distribution(name)
            self._link(found)
            todo += needed(found)

    def _link(self, found):
        tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            target = self.site / top
            if not target.exists():
                target.symlink_to(Path(found.locate_file(top)))


def needed(found):
    """Return the names of what a distribution needs without extras."""
    requirements = map(Requirement, found.requires or ())
    return [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]


def empty_wheel(folder, name, version, requires=()):
    """Write a wheel of a distribution that holds nothing, and return its path."""
    escaped = name.replace("-", "_")
    info = f"{escaped}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
    files = {
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    path = Path(folder) / f"{escaped}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for place, content in files.items():
            archive.writestr(place, content)
    return path

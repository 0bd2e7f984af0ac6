"""The commands that write something for good, each with an older output that it replaces."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgeprune.cli import COMMANDS
from edgeprune_formats import EdgePruneError
from edgeprune_formats.files import file_sha256

from .child import edgeprune, in_child
from .stock import TRAIN, take

__all__ = ["OPERATIONS", "Operation", "command"]

# Packs tell when they were made; so equal content has equal bytes.
CLOCK = {"SOURCE_DATE_EPOCH": "1500000000"}


def command(words: Sequence[str]) -> Callable[[], None]:
    """Return what runs a command with a clock that stands still."""
    return partial(edgeprune, words, CLOCK)


@dataclass(frozen=True)
class Operation:
    """A command, and what lies in its folder before it.

    Attributes
    ----------
    name : str
        The command.
    words : tuple of str
        All of it.
    outputs : str
        A pattern of the files that it makes or replaces.
    needs : tuple of str
        What it reads, from stock.
    before : tuple of tuples of str
        Commands that make the older output.
    again : tuple of str
        Words more for a run after one that failed.
    waits : bool
        Whether a full disk makes it wait for room.
    """

    name: str
    words: tuple[str, ...]
    outputs: str
    needs: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    again: tuple[str, ...] = ()
    waits: bool = False

    def prepare(self, stock: Path, folder: Path) -> Path:
        """Make the folder with what the command reads, and the older output."""
        folder.mkdir()
        for name in self.needs:
            kept = take(stock, name)
            copies = [kept, *stock.glob(f"{name}.pub")]
            for one in copies:
                (shutil.copytree if one.is_dir() else shutil.copyfile)(one, folder / one.name)
        for words in self.before:
            done = in_child(command(words), folder, limit=300)
            if done.code != 0:
                raise EdgePruneError(f"{' '.join(words)}: {done.err.strip()[-300:]}")
        return folder

    def state(self, folder: Path) -> dict[str, str]:
        """Return the digest of each output there is, by its name; equal content has equal bytes."""
        paths = sorted(folder.glob(self.outputs))
        return {str(path.relative_to(folder)): file_sha256(path) for path in paths}


_CPU = ("--device", "cpu", "-q")
_BUILD = ("build", "npz:arrays.npz", *_CPU, "-o", "out.h5")

OPERATIONS = [
    Operation(
        "build",
        (*_BUILD, "--codec", "sparse-f32", "--force"),
        "out.h5",
        ("arrays.npz",),
        ((*_BUILD, "--quality", "20"),),
    ),
    Operation(
        "convert",
        ("convert", "sparse.h5", "--quality", "70", "-q", "-o", "out.h5", "--force"),
        "out.h5",
        ("sparse.h5",),
        (("convert", "sparse.h5", "--quality", "20", "-q", "-o", "out.h5"),),
    ),
    Operation(
        "sign",
        ("sign", "pack.h5", "--key", "maker.key"),
        "pack.h5*",
        ("pack.h5", "maker.key", "other.key"),
        (("sign", "pack.h5", "--key", "other.key"),),
    ),
    Operation(
        "split",
        ("split", "sparse.h5", "-n", "3", "-o", "parts", "-q", "--force"),
        "parts/*.h5",
        ("sparse.h5",),
        (("split", "sparse.h5", "-n", "3", "-o", "parts", "-q", "--seed", "9"),),
    ),
    Operation(
        "merge",
        ("merge", "one-1.h5", "one-2.h5", "-q", "-o", "out.h5", "--force"),
        "out.h5",
        ("sparse.h5",),
        (
            ("split", "sparse.h5", "-n", "2", "-o", "one-{part}.h5", "-q"),
            ("merge", "one-1.h5", "one-2.h5", "-q", "-o", "out.h5", "--seed", "9"),
        ),
    ),
    Operation(
        "train",
        ("train", "pack.h5", *TRAIN, "--checkpoint-steps", "1", "-o", "new"),
        "new/model.safetensors",
        ("pack.h5",),
        again=("--resume",),
        waits=True,
    ),
    Operation(
        "export",
        ("export", "run", "-o", "out.onnx", "--force"),
        "out.onnx",
        ("run", "pack.h5"),
        # An older graph; that it is one does not matter here.
        (("convert", "pack.h5", "-q", "-o", "out.onnx"),),
    ),
]
if "repair" in COMMANDS:
    OPERATIONS.append(
        Operation(
            "repair",
            ("repair", "damaged.h5", "-q", "-o", "out.h5", "--force"),
            "out.h5",
            ("damaged.h5", "pack.h5"),
            (("convert", "pack.h5", "-q", "-o", "out.h5"),),
        )
    )

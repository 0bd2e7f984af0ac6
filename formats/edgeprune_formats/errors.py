"""The exception hierarchy of the project, from which every message to a user comes.

EdgePruneError
├── ConfigError            a caller's misuse: an option out of range, two options that exclude each other
├── PackFormatError        a file that is not a valid pack, or no longer one
│   ├── NotAPackError          not HDF5, or HDF5 of another kind
│   ├── PackVersionError       a format version or codec that this release does not read
│   ├── PackLayoutError        objects missing, of the wrong type or shape, or not allowed
│   ├── PackLimitError         declared sizes beyond what a reader accepts
│   └── PackChecksumError      stored bytes that do not match their checksum, or are cut off
├── PackWriteError         a pack, or another file, cannot be written: permissions, disk full
├── RemoteError            a far file that cannot be fetched, or is not the one that was asked for
├── ArtifactError          (edgeprune_runtime.errors) a scores file, FSE-Net, classifier or ONNX model
├── SignatureError         (edgeprune_runtime.errors) a file without the signature that is asked for
├── TrainingError          (edgeprune_runtime.errors) a run that cannot start, continue or be resumed
└── SourceError            (edgeprune.errors) images or labels that cannot be read or do not fit together
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ConfigError",
    "DefectError",
    "EdgePruneError",
    "NotAPackError",
    "PackChecksumError",
    "PackFormatError",
    "PackLayoutError",
    "PackLimitError",
    "PackVersionError",
    "PackWriteError",
    "Problem",
    "RemoteError",
    "attribute_problem",
    "error_for",
    "one_line",
    "printable",
]

LONGEST_REASON = 400


def printable(text: str) -> str:
    """Return `text` on one line with everything that could drive a terminal replaced by its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(reason: object) -> str:
    """Return what is wrong with a file as `printable` text that is not longer than a few lines.

    Names and values in messages come from the file, and messages of other libraries have lines of their own.
    """
    text = printable(" ".join(str(reason).split()))
    if len(text) <= LONGEST_REASON:
        return text
    # What is wrong, and the remedy, stand at the end.
    half = LONGEST_REASON // 2
    return f"{text[:half]}...{text[3 - half :]}"


class EdgePruneError(Exception):
    """Base of every error that the project raises on purpose; its text is one line for a user."""


class ConfigError(EdgePruneError):
    """An argument or option is wrong: the caller's mistake, not the data's."""


class PackWriteError(EdgePruneError):
    """A pack, or another file, cannot be written where it was asked for."""


class RemoteError(EdgePruneError):
    """A far file cannot be fetched, has changed, or has another digest than the one that was asked for."""


@dataclass(frozen=True)
class Problem:
    """One defect of a pack file.

    Attributes
    ----------
    kind : str
        ``"not-a-pack"``, ``"version"``, ``"layout"``, ``"limit"`` or ``"checksum"``.
    location : str
        The HDF5 object concerned, e.g. ``"/samples/values chunk 3"``.
    message : str
        What is wrong and, where there is one, the remedy; made `one_line`.
    """

    kind: str
    location: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", one_line(self.message))

    def __str__(self) -> str:
        # Of the root nothing is said: it is the file as a whole.
        return self.message if self.location == "/" else f"{self.location}: {self.message}"


def attribute_problem(name: str, message: str, kind: str = "layout") -> Problem:
    """Return the problem of an attribute of the root group."""
    return Problem(kind, f"/ attribute {name}", message)


class PackFormatError(EdgePruneError):
    """A pack is unreadable, damaged or hostile.

    Attributes
    ----------
    path : Path
        The file. The text of the error begins with it, or with the URL of a far one.
    problem : Problem
        The defect that stopped the reader; `verify_pack` lists them all.
    """

    def __init__(self, path: str | Path, problem: Problem) -> None:
        super().__init__(path, problem)
        self.path = Path(path)
        self.problem = problem

    def __str__(self) -> str:
        # As it was given: a path would make one slash of the two of a URL.
        return f"{self.args[0]}: {self.problem}"


class NotAPackError(PackFormatError):
    """The file is not HDF5, or is HDF5 of another kind."""


class PackVersionError(PackFormatError):
    """The file needs another release: unknown major version or codec."""


class PackLayoutError(PackFormatError):
    """Objects are missing, of the wrong type or shape, or not allowed in a pack."""


class PackLimitError(PackFormatError):
    """Declared sizes exceed what a reader accepts."""


class PackChecksumError(PackFormatError):
    """Stored bytes are cut off or do not match their checksum."""


class DefectError(Exception):
    """What reading HDF5 finds wrong: a `Problem`, to be listed or told as an error of the file."""

    def __init__(self, kind: str, location: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(kind, location, message)


_BY_KIND: dict[str, type[PackFormatError]] = {
    "not-a-pack": NotAPackError,
    "version": PackVersionError,
    "layout": PackLayoutError,
    "limit": PackLimitError,
    "checksum": PackChecksumError,
}


def error_for(path: str | Path, problem: Problem) -> PackFormatError:
    """Return the member of the `PackFormatError` family that stands for `problem`."""
    return _BY_KIND[problem.kind](path, problem)

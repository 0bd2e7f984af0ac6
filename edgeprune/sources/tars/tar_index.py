"""Where the members of a tar file are: one pass over its headers, so that images can be read in any order."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...errors import SourceError
from ..decoding.files import as_text

__all__ = ["Member", "opened", "read_at", "samples_of"]

_BLOCK = 512
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
}
# As webdataset does it: what comes before the first dot of the name is the key of the sample.
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


@dataclass(frozen=True)
class Member:
    """A member of a tar file.

    Attributes
    ----------
    start, size : int
        Where its content is in the file, in bytes.
    """

    start: int
    size: int


def samples_of(file: str) -> Iterator[tuple[str, dict[str, Member]]]:
    """Give the samples of a tar file in their order: keys, and members by what follows the key and a dot.

    Links, folders, hidden files and names without a dot are passed over.

    Raises
    ------
    SourceError
        The file is compressed, cut short or no tar file, or a sample has two members of one name.
    """
    key, members = "", dict[str, Member]()
    for name, member in _members(file):
        found = _NAME.fullmatch(name)
        if found is None or found[1].startswith("__") or "/__" in found[1]:
            continue
        if found[1] != key:
            if members:
                yield key, members
            key, members = found[1], {}
        ending = found[2].lower()
        if ending in members:
            raise SourceError(f"{as_text(file)}: has {as_text(name)} twice; keys of samples must not repeat")
        members[ending] = member
    if members:
        yield key, members


def _members(file: str) -> Iterator[tuple[str, Member]]:
    shown = as_text(file)
    try:
        with Path(file).open("rb") as stream:
            _require_plain(stream.read(_BLOCK), shown)
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                while (entry := archive.next()) is not None:
                    # It would keep all of them.
                    archive.members = []  # type: ignore[attr-defined]
                    if not entry.isreg():
                        continue
                    if entry.issparse():
                        raise SourceError(
                            f"{shown}: {as_text(entry.name)} is a sparse file; pack it without -S"
                        )
                    yield entry.name, Member(entry.offset_data, entry.size)
                _require_end(stream.fileno(), archive.offset, shown)
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise SourceError(f"{shown}: is no tar file, is damaged or cut short: {error}") from error
    except OSError as error:
        raise SourceError(f"{shown}: cannot be read: {error.strerror or error}") from error


def _require_plain(head: bytes, shown: str) -> None:
    for magic, (kind, remedy) in _COMPRESSED.items():
        # The name of a member may begin like a compressed file.
        if head[257:262] != b"ustar" and head.startswith(magic):
            raise SourceError(
                f"{shown}: is compressed ({kind}), and images are read in any order; {remedy} it first"
            )


def _require_end(descriptor: int, end: int, shown: str) -> None:
    """Raise where a tar file does not end as one, which tarfile passes over."""
    if os.pread(descriptor, _BLOCK, end) != bytes(_BLOCK):
        raise SourceError(f"{shown}: is damaged or cut short after {end:,} bytes")
    while block := os.pread(descriptor, 2**20, end):
        if block.strip(b"\0"):
            raise SourceError(
                f"{shown}: goes on after its end; are several tar files joined? Keep them apart"
            )
        end += len(block)


@contextmanager
def opened(file: str) -> Iterator[int]:
    """Open a file to be read at any place; give its descriptor."""
    try:
        with Path(file).open("rb", buffering=0) as stream:
            yield stream.fileno()
    except OSError as error:
        raise SourceError(f"{as_text(file)}: cannot be read: {error.strerror or error}") from error


def read_at(file: str, descriptor: int, member: Member) -> bytes:
    """Return the content of a member of an open file; any thread or process may call it.

    Raises
    ------
    SourceError
        The file has become shorter.
    """
    content = os.pread(descriptor, member.size, member.start)
    if len(content) != member.size:
        raise SourceError(f"{as_text(file)}: is cut short after {member.start + len(content):,} bytes")
    return content

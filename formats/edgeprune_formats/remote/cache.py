"""The folder of fetched files: each lies under the SHA-256 of its content, and URLs refer to that.

``files/SHA256/NAME``
    A whole file, and beside it ``record.json``: its name, what it looked like on the disk when its SHA-256
    was computed, and whether all of it was verified as a pack.
``urls/KEY.json``
    Which content a URL had, and which `State` its server told. ``KEY.part`` and ``KEY.part.json`` are a fetch
    that is not done, ``KEY.lock`` is locked while somebody fetches, ``KEY.small`` is a small file. KEY is a
    hash of the URL without user and password.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import EdgePruneError, RemoteError
from ..files import atomic_file, file_sha256, publish, read_regular
from ..isolation import identity_of
from ..locks import open_lock
from ..strict_json import parse_json
from .locations import RemoteFile
from .transport import State

__all__ = ["CACHE_VARIABLE", "Cache", "Kept", "cache_folder"]

CACHE_VARIABLE = "EDGEPRUNE_CACHE"
_MAX_RECORD_BYTES = 2**16
_WAIT_SECONDS = 0.1


def cache_folder() -> Path:
    """Return where fetched files are kept.

    ``$EDGEPRUNE_CACHE``, else ``edgeprune`` in ``$XDG_CACHE_HOME``, which is ``~/.cache`` by default.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "edgeprune"  # noqa: PTH117


@dataclass(frozen=True)
class Kept:
    """A whole file in the cache.

    Attributes
    ----------
    path : Path
    sha256 : str
    verified : bool
        Whether all of it was verified as a pack, in a process of its own.
    """

    path: Path
    sha256: str
    verified: bool


class Cache:
    """The cache folder, made if it is missing.

    Raises
    ------
    RemoteError
        It cannot be made or written to.
    """

    def __init__(self) -> None:
        self.folder = cache_folder()
        self._files, self._urls = self.folder / "files", self.folder / "urls"
        with self.usable():
            for folder in (self._files, self._urls):
                folder.mkdir(0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def usable(self) -> Iterator[None]:
        """Make a `RemoteError` that names the remedy of what the disk raises."""
        try:
            yield
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise RemoteError(
                f"{self.folder}: the cache of far files cannot be used ({reason}); free some space there, or "
                f"set {CACHE_VARIABLE} to another folder"
            ) from error

    def kept(self, sha256: str) -> Kept | None:
        """Return the file of this content, if it is here and unchanged; one that was changed is removed."""
        record = _read(self._files / sha256 / "record.json")
        path = self._files / sha256 / Path(str(record.get("name", "."))).name
        if not path.is_file():
            return None
        verified = record.get("verified") is True
        if record.get("identity") != list(identity_of(path)):
            if file_sha256(path) != sha256:
                self.drop(sha256)
                return None
            self._record(sha256, path.name, verified)
        return Kept(path, sha256, verified)

    def known(self, remote: RemoteFile) -> tuple[State, Kept] | None:
        """Return what the server told of a URL when it was fetched, and the file, if it is here."""
        record = _read(self._place(remote, ".json"))
        state, kept = _state(record), self.kept(str(record.get("sha256", "-")))
        return (state, kept) if state is not None and kept is not None else None

    def part(self, remote: RemoteFile, mark: str = "") -> tuple[Path, State | None]:
        """Return where a fetch writes to, and the `State` of which there is a part already."""
        path = self._place(remote, f"{mark}.part")
        return path, _state(_read(self._place(remote, f"{mark}.part.json")))

    def begin(self, remote: RemoteFile, state: State, mark: str = "") -> None:
        """Note of which `State` the part is that is about to be written."""
        _write(self._place(remote, f"{mark}.part.json"), {"size": state.size, "version": state.version})

    def forget_part(self, remote: RemoteFile, mark: str = "") -> None:
        """Remove what was fetched of a file."""
        for suffix in (".part", ".part.json"):
            self._place(remote, mark + suffix).unlink(missing_ok=True)

    def keep(self, remote: RemoteFile, part: Path, state: State, sha256: str, verified: bool) -> Kept:
        """Give a whole file its name, unless it is here under another, and let its URL refer to it."""
        kept = self.kept(sha256)
        if kept is None:
            folder = self._files / sha256
            folder.mkdir(0o700, exist_ok=True)
            publish(part, folder / remote.name, is_new=False)
            kept = Kept(folder / remote.name, sha256, verified)
            self._record(sha256, remote.name, verified)
        else:
            part.unlink()
            if verified and not kept.verified:
                self.mark_verified(kept)
        facts = {"url": str(remote), "sha256": sha256, "size": state.size, "version": state.version}
        _write(self._place(remote, ".json"), facts)
        return replace(kept, verified=verified or kept.verified)

    def mark_verified(self, kept: Kept) -> None:
        """Note that a file was verified."""
        self._record(kept.sha256, kept.path.name, True)

    def drop(self, sha256: str) -> None:
        """Remove a file."""
        folder = self._files / sha256
        for path in [*folder.glob("*")]:
            path.unlink(missing_ok=True)

    def small(self, remote: RemoteFile) -> Path:
        """Return where the last copy of a small file is kept, by its URL without all credentials."""
        return self._place(RemoteFile(str(remote)), ".small")

    @contextlib.contextmanager
    def alone(self, remote: RemoteFile, waiting: Callable[[], object]) -> Iterator[str]:
        """Let one process at a time fetch a URL; others wait, and are told so once.

        Gives a mark for the name of its part: a random one where the disk has no locks, and nothing can be
        resumed.
        """
        told = False
        while True:
            with self.usable():
                descriptor, locked = open_lock(self._place(remote, ".lock"))
            if locked is not False:
                break
            os.close(descriptor)
            if not told:
                waiting()
            told = True
            time.sleep(_WAIT_SECONDS)
        mark = "" if locked else f".{secrets.token_hex(8)}"
        try:
            yield mark
        finally:
            if mark:
                self.forget_part(remote, mark)
            os.close(descriptor)

    def _place(self, remote: RemoteFile, suffix: str) -> Path:
        return self._urls / f"{remote.key}{suffix}"

    def _record(self, sha256: str, name: str, verified: bool) -> None:
        folder = self._files / sha256
        facts = {"name": name, "identity": list(identity_of(folder / name)), "verified": verified}
        _write(folder / "record.json", facts)


def _read(path: Path) -> dict[str, Any]:
    """Return a record; {} where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        record = parse_json(read_regular(path, _MAX_RECORD_BYTES))
        return record if isinstance(record, dict) else {}
    return {}


def _write(path: Path, facts: dict[str, Any]) -> None:
    try:
        with atomic_file(path) as partial:
            partial.write_text(json.dumps(facts, indent=1) + "\n")
    except EdgePruneError as error:
        # What the disk said, for `Cache.usable`.
        raise (error.__cause__ if isinstance(error.__cause__, OSError) else error) from None


def _state(record: dict[str, Any]) -> State | None:
    size, version = record.get("size"), record.get("version")
    if not isinstance(version, str) or not (size is None or type(size) is int):
        return None
    return State(size, version)

"""URLs of far files: which schemes there are, and what of a URL may be shown."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from ..errors import ConfigError

__all__ = ["PACKAGES", "PackPath", "RemoteFile", "as_remote", "is_url", "without_credentials"]

PACKAGES = {
    "http": "aiohttp",
    "https": "aiohttp",
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "hf": "huggingface_hub",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "ftp": "fsspec",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "hdfs": "pyarrow",
    "oci": "ocifs",
    "oss": "ossfs",
    "memory": "fsspec",
}
"""The schemes that are taken, and the package that fsspec needs for each."""
# What stands before @ there is the container, not a user.
_CONTAINERS = ("abfs", "abfss")
_URL = re.compile(rf"({'|'.join(PACKAGES)})://", re.IGNORECASE)
# A URL that went through `pathlib.Path`, which takes two slashes for one.
_FLATTENED = re.compile(rf"({'|'.join(PACKAGES)}):/(?!/)", re.IGNORECASE)
_ANY_URL = re.compile(
    rf"\b((?:{'|'.join(PACKAGES)}):/|[a-z][a-z0-9+.-]{{1,15}}:/(?=/))(/?)([^\s'\"<>]*[^\s'\"<>:;,)])",
    re.IGNORECASE,
)
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LONGEST_NAME = 100


@dataclass(frozen=True, repr=False)
class RemoteFile:
    """A far file. As text it is its URL without credentials, so it can be printed.

    Attributes
    ----------
    url : str
        What is asked for, with user, password and query. It is for the server alone.
    sha256 : str, optional
        What its content must have, 64 hex digits.
    """

    url: str
    sha256: str | None = None

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        shown = urlunsplit((parts.scheme, _host(parts), parts.path, "", ""))
        return f"{shown}?..." if parts.query else shown

    def __repr__(self) -> str:
        return f"RemoteFile({str(self)!r})"

    @property
    def scheme(self) -> str:
        """The part of the URL before the colon, in lower case."""
        return urlsplit(self.url).scheme

    @property
    def name(self) -> str:
        """What a copy of it may be called: the end of its path, in characters that every disk takes."""
        last = PurePosixPath(unquote(urlsplit(self.url).path)).name
        return re.sub(r"[^\w.-]", "_", last, flags=re.ASCII).lstrip(".")[-_LONGEST_NAME:] or "pack.h5"

    @property
    def key(self) -> str:
        """A short name for the URL without user and password, 32 hex digits, from which nobody reads it."""
        parts = urlsplit(self.url)
        bare = urlunsplit(parts._replace(netloc=_host(parts)))
        return hashlib.sha256(bare.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def beside(self, suffix: str) -> RemoteFile:
        """Return the file whose name has `suffix` behind that of this one."""
        parts = urlsplit(self.url)
        return RemoteFile(urlunsplit(parts._replace(path=parts.path + suffix)))

    def hide(self, text: object) -> str:
        """Return what a library says of this file, with nothing in it that is for the server alone."""
        parts, said = urlsplit(self.url), str(text)
        for secret in (self.url, parts.query, parts.netloc.rpartition("@")[0], parts.password or ""):
            if secret and parts.scheme not in _CONTAINERS:
                said = said.replace(secret, "..." if secret != self.url else str(self))
        return without_credentials(said)


PackPath = str | os.PathLike[str] | RemoteFile
"""What names a pack: a path, or the URL of a far one as str."""


def is_url(text: str) -> bool:
    """Return whether a text is a URL of a far file, and no path."""
    return _URL.match(text) is not None


def as_remote(path: PackPath) -> RemoteFile | None:
    """Return the far file that a text names; None where it is a path, such as ``name:with.h5`` or ``C:x``.

    Only the schemes of `PACKAGES`, followed by ``://``, make a URL. It may end in ``#sha256=`` and 64 hex
    digits.

    Raises
    ------
    ConfigError
        A URL that cannot be one, or one that was made a `pathlib.Path`.
    """
    if isinstance(path, RemoteFile):
        return path
    text = os.fsdecode(path)
    if not is_url(text):
        # As text, hf:/PATH is a source: a folder of the library datasets.
        is_source = isinstance(path, str) and text.startswith("hf:")
        if _FLATTENED.match(text) and not is_source and not os.path.lexists(text):
            raise ConfigError(f"{without_credentials(text)}: give a URL as str, and with two slashes")
        return None
    base, mark, fragment = text.rpartition("#")
    digest = None
    if mark and fragment.lower().startswith("sha256="):
        text, digest = base, fragment[len("sha256=") :].lower()
        if not _DIGEST.fullmatch(digest):
            raise ConfigError(f"{without_credentials(base)}: #sha256= must be followed by 64 hex digits")
    elif mark and text.lower().startswith("http"):
        raise ConfigError(f"{without_credentials(base)}: after # only sha256=DIGEST can stand")
    try:
        parts = urlsplit(text)
        # Paths of other schemes may do without a host.
        place = parts.hostname if parts.scheme in ("http", "https") else parts.netloc or parts.path.strip("/")
        known = bool(place) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known:
        raise ConfigError(f"{without_credentials(text)}: no host or no valid one; check the URL")
    return RemoteFile(text, digest)


def without_credentials(text: str) -> str:
    """Return a text with users, passwords and queries taken out of every URL in it."""

    def bare(found: re.Match[str]) -> str:
        scheme, slash, rest = found.groups()
        rest, query, _ = rest.partition("?")
        host, slashes, path = rest.partition("/")
        kept = host if scheme.lower()[:-2] in _CONTAINERS else host.rpartition("@")[2]
        return f"{scheme}{slash}{kept}{slashes}{path}{'?...' if query else ''}"

    return _ANY_URL.sub(bare, text)


def _host(parts: SplitResult) -> str:
    return parts.netloc if parts.scheme in _CONTAINERS else parts.netloc.rpartition("@")[2]

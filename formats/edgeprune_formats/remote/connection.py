"""Which way a far file is asked for, by the scheme of its URL."""

from __future__ import annotations

from .locations import RemoteFile
from .transport import Transport

__all__ = ["connect"]


def connect(remote: RemoteFile) -> Transport:
    """Return what asks for a far file.

    Raises
    ------
    ConfigError
        fsspec, or the package for this scheme, is not installed.
    RemoteError
        The package cannot begin, for example without credentials.
    """
    if remote.scheme in ("http", "https"):
        from .web import WebTransport

        return WebTransport(remote)
    from .filesystems import FilesystemTransport

    return FilesystemTransport(remote)

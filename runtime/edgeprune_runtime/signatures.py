"""Signatures of files: who made this pack, and is it the file that they made.

Ed25519 (RFC 8032) over the SHA-256 of the whole file. The signature is JSON in a file beside it,
``NAME.sig``, and in the file's extended attribute ``user.edgeprune.signature`` where the file system has it.
Needs the package cryptography, in the extra ``sign``. SECURITY.md says what a signature promises.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeprune_formats import ConfigError
from edgeprune_formats.files import atomic_file, file_sha256, read_regular
from edgeprune_formats.remote.locations import RemoteFile
from edgeprune_formats.strict_json import parse_json

from .checks import from_json
from .errors import SignatureError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = [
    "ATTRIBUTE",
    "Signature",
    "check_signature",
    "fingerprint",
    "make_key",
    "sign_file",
    "signature_path",
    "signed_pack",
    "signed_remote",
]

ATTRIBUTE = "user.edgeprune.signature"
"""The extended attribute that holds a copy of the signature."""
_MAX_BYTES = 2**16
# So that a signature of a pack can never pass for one of anything else.
_CONTEXT = b"edgeprune file signature 1\0"
# As `fingerprint`, a digest in hexadecimal and 64 bytes in base64 are written.
_PATTERNS = {"key": "SHA256:[A-Za-z0-9+/]{43}", "sha256": "[0-9a-f]{64}", "signature": "[A-Za-z0-9+/]{86}=="}


@dataclass(frozen=True)
class Signature:
    """What ``NAME.sig`` holds.

    Attributes
    ----------
    format, algorithm : str
    key : str
        `fingerprint` of the public key.
    sha256 : str
        Of the file, 64 hex digits.
    signature : str
        64 bytes in base64.
    """

    key: str
    sha256: str
    signature: str
    format: Literal["edgeprune-signature-1"] = "edgeprune-signature-1"
    algorithm: Literal["ed25519"] = "ed25519"

    def __post_init__(self) -> None:
        for name, pattern in _PATTERNS.items():
            if re.fullmatch(pattern, getattr(self, name)) is None:
                raise ValueError(f"its {name} is of another form")


def signature_path(path: Path) -> Path:
    """Return where the signature of a file is: beside it, with ``.sig`` behind its name."""
    return path.with_name(f"{path.name}.sig")


def make_key(path: Path) -> str:
    """Write a new key: `path`, for its owner alone, and the public key to ``path.pub``, both in PEM.

    Returns
    -------
    str
        The `fingerprint`.

    Raises
    ------
    ConfigError
        The package cryptography is missing, or one of the files exists.
    PackWriteError
        A file cannot be written.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not path.name:
        raise ConfigError(f"{path}: is a folder; name a file")
    public_path = path.with_name(f"{path.name}.pub")
    for one in (path, public_path):
        if os.path.lexists(one):
            raise ConfigError(f"{one} exists; a key is never replaced, name another file")
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    # The longer name first: where that cannot be, there is no private key either.
    for one, content, mode in ((public_path, public, 0o644), (path, secret, 0o600)):
        with atomic_file(one) as partial:
            partial.touch(mode)
            partial.write_bytes(content)
    return fingerprint(key.public_key())


def fingerprint(key: Ed25519PublicKey) -> str:
    """Return a name for a public key that people can compare: SHA-256 of its 32 bytes, in base64."""
    digest = hashlib.sha256(key.public_bytes_raw()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def sign_file(path: Path, key_path: Path, *, replace_existing: bool = False) -> tuple[Signature, bool]:
    """Sign a file; an older signature by the same key is replaced.

    Parameters
    ----------
    path : Path
        The file, which is read whole and not changed.
    key_path : Path
        A private key as `make_key`, OpenSSL or ssh-keygen write it, without a passphrase.
    replace_existing : bool
        Replace a signature by another key, or whatever file has its name, as well.

    Returns
    -------
    signature : Signature
    attribute : bool
        Whether the file system took the extended attribute as well.

    Raises
    ------
    ConfigError
        The key cannot be used, the package cryptography is missing, or as `require_replaceable`.
    SignatureError
        The file cannot be read, or changes while it is.
    PackWriteError
        The signature cannot be written.
    """
    _require_cryptography()
    key = _private_key(key_path)
    if not replace_existing:
        require_replaceable(path, key_path)
    digest = _digest(path)
    signed = key.sign(_message(digest))
    made = Signature(fingerprint(key.public_key()), digest, base64.b64encode(signed).decode())
    content = (json.dumps(asdict(made), indent=1) + "\n").encode()
    with atomic_file(signature_path(path)) as partial:
        partial.write_bytes(content)
    try:
        os.setxattr(path, ATTRIBUTE, content)
    except (OSError, AttributeError):  # no such attributes on this disk, or in this system's Python
        return made, False
    return made, True


def require_replaceable(path: Path, key_path: Path) -> None:
    """Require that a file has no signature but older ones by this key, beside it and in its attribute.

    Raises
    ------
    ConfigError
        What has the name of the signature is something else, or cannot be read; or the key cannot be used.
    """
    _require_cryptography()
    owner, place = fingerprint(_private_key(key_path).public_key()), signature_path(path)
    remedy = "pass `replace_existing=True` to replace it"
    try:
        if place.is_symlink() or (place.exists() and not place.is_file()):
            raise ConfigError(f"{place}: is a link, a folder or a device; remove it")
        makers = {_parsed(path, content).key for content in _stored(path)}
    except SignatureError as error:
        raise ConfigError(f"{error}; or {remedy}") from error
    except OSError as error:
        raise ConfigError(f"{place}: {error.strerror}; rename {path.name}") from error
    for maker in sorted(makers - {owner}):
        where = "beside it or in its extended attribute"
        raise ConfigError(f"{path}: is signed by {maker}, {where}, another key than {owner}; {remedy}")


def check_signature(path: Path, key_path: Path) -> Signature:
    """Check that a file is, byte for byte, what the owner of a key has signed.

    Parameters
    ----------
    path : Path
        Its signature is looked for beside it, then in its extended attribute.
    key_path : Path
        The public key, in PEM or as ssh-keygen writes it.

    Raises
    ------
    ConfigError
        The key cannot be used, or the package cryptography is missing.
    SignatureError
        There is no signature, it is of another key, or the file is not what was signed.
    """
    _require_cryptography()
    key = _public_key(key_path)
    ours = _of_owner(path, [_parsed(path, content) for content in _stored(path)], key, key_path)
    digest = _digest(path)
    for one in ours:
        if one.sha256 == digest and _is_valid(one, key):
            return one
    owner = fingerprint(key)
    raise SignatureError(f"{path}: is not the file that {owner} has signed; get it again from its maker")


def signed_pack(path: Path | RemoteFile, key_path: Path) -> tuple[Signature, Path | RemoteFile]:
    """Check the signature of a pack, and return it with what to open, of which the content was checked.

    As `check_signature`, or `signed_remote` and a fetch.
    """
    if not isinstance(path, RemoteFile):
        return check_signature(path, key_path), path
    from edgeprune_formats.remote.fetch import fetch

    made, remote = signed_remote(path, key_path)
    fetch(remote)
    return made, remote


def signed_remote(remote: RemoteFile, key_path: Path) -> tuple[Signature, RemoteFile]:
    """Fetch the signature of a far file, and return it with the file as it must be: by its digest.

    Whoever fetches that file holds its content against the digest. The signature has the file's URL with
    ``.sig`` behind the path.

    Raises
    ------
    ConfigError
        As `check_signature`, or fsspec is missing.
    SignatureError
        There is no signature, it is of another key, is not valid, or is of another digest than the URL's.
    RemoteError
        It cannot be fetched.
    """
    from edgeprune_formats.remote.fetch import fetch_small
    from edgeprune_formats.remote.transport import MissingError

    _require_cryptography()
    key = _public_key(key_path)
    try:
        found = [_parsed(remote, fetch_small(remote.beside(".sig"), _MAX_BYTES))]
    except MissingError:
        found = []
    made = _of_owner(remote, found, key, key_path)[0]
    if not _is_valid(made, key):
        raise SignatureError(f"{remote}: its signature is not one of {made.key}; do not use it")
    if remote.sha256 not in (None, made.sha256):
        raise SignatureError(
            f"{remote}: the SHA-256 {remote.sha256} is asked for, and {made.sha256} is signed; do not use it"
        )
    return made, RemoteFile(remote.url, made.sha256)


def _of_owner(
    path: Path | RemoteFile, found: list[Signature], key: Ed25519PublicKey, key_path: Path
) -> list[Signature]:
    """Return the signatures that say they are of a key; raises `SignatureError` where there is none."""
    owner = fingerprint(key)
    if not found:
        raise SignatureError(f"{path}: has no signature; get {path.name}.sig from its maker")
    ours = [one for one in found if one.key == owner]
    if not ours:
        raise SignatureError(f"{path}: signed by {found[0].key}, and {key_path} is {owner}; do not use it")
    return ours


def _is_valid(made: Signature, key: Ed25519PublicKey) -> bool:
    from cryptography.exceptions import InvalidSignature

    with suppress(InvalidSignature, ValueError):
        key.verify(base64.b64decode(made.signature, validate=True), _message(made.sha256))
        return True
    return False


def _message(digest: str) -> bytes:
    return _CONTEXT + bytes.fromhex(digest)


def _digest(path: Path) -> str:
    try:
        before = path.stat()
        if not path.is_file():
            raise SignatureError(f"{path}: not a regular file")
        digest, after = file_sha256(path), path.stat()
    except OSError as error:
        raise SignatureError(f"{path}: cannot be read ({error.strerror})") from error
    if any(getattr(before, name) != getattr(after, name) for name in ("st_ino", "st_size", "st_mtime_ns")):
        raise SignatureError(f"{path}: has changed while it was read; try again")
    return digest


def _stored(path: Path) -> list[bytes]:
    found = []
    try:
        found.append(read_regular(signature_path(path), _MAX_BYTES))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise SignatureError(f"{signature_path(path)}: cannot be read ({error.strerror})") from error
    with suppress(OSError, AttributeError):
        found.append(os.getxattr(path, ATTRIBUTE))
    return found


def _parsed(path: Path | RemoteFile, content: bytes) -> Signature:
    try:
        return from_json(Signature, parse_json(content))
    except ValueError as error:
        raise SignatureError(f"{path}: its signature is damaged ({error}); get it again") from error


def _read_key(path: Path) -> bytes:
    try:
        return read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: the key cannot be read ({error.strerror})") from error


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    content = _read_key(path)
    ssh = b"OPENSSH PRIVATE KEY" in content
    load: Any = serialization.load_ssh_private_key if ssh else serialization.load_pem_private_key
    key = _loaded(path, content, lambda raw: load(raw, None), "edgeprune keygen makes one")
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: not an Ed25519 key; edgeprune keygen makes one")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    content = _read_key(path)
    if b"PRIVATE KEY" in content:
        raise ConfigError(f"{path}: is a private key, which stays with its owner; give the public one, .pub")
    ssh = content.startswith(b"ssh-")
    load: Any = serialization.load_ssh_public_key if ssh else serialization.load_pem_public_key
    key = _loaded(path, content, load, "give the .pub of edgeprune keygen")
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: not an Ed25519 key; give the .pub of edgeprune keygen")
    return key


def _loaded(path: Path, content: bytes, load: Any, remedy: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return load(content)
    except TypeError as error:
        raise ConfigError(f"{path}: the key has a passphrase; give one without") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: not a key that can be read; {remedy}") from error


def _require_cryptography() -> None:
    try:
        import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401
    except ImportError as error:
        raise ConfigError("signatures need cryptography; pip install 'edgeprune[sign]'") from error

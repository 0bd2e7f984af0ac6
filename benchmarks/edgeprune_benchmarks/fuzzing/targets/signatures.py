"""The signature beside a file."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

from edgeprune_runtime.signatures import check_signature, make_key, sign_file, signature_path

from ..mutation import changed_json
from ..outcomes import WrongError
from .base import Target

__all__ = ["Sidecar"]


class Sidecar(Target):
    """What is accepted must hold the signature that was made."""

    name = "signature"
    what = "JSON of a signature beside a file"
    needs = ("cryptography",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._file, self._key = folder / "file", folder / "key"
        self._file.write_bytes(b"signed")
        make_key(self._key)
        self._made, _ = sign_file(self._file, self._key)
        self.seeds = [signature_path(self._file).read_bytes()]
        # A new file, because the extended attribute of this one holds the signature as well.
        self._file.unlink()
        self._file.write_bytes(b"signed")

    def check(self, data: bytes) -> None:
        """Check the file by a signature."""
        signature_path(self._file).write_bytes(data)
        found = check_signature(self._file, self._key.with_name("key.pub"))
        signed = (base64.b64decode(one.signature) for one in (found, self._made))
        if found.key != self._made.key or len(set(signed)) != 1:
            raise WrongError("another signature is accepted")
        if found.sha256 != self._made.sha256:
            raise WrongError(f"accepted with the digest {json.dumps(found.sha256)}")

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Change values of the JSON text."""
        return changed_json(data, source)

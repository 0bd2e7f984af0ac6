"""What a codec stores of a chunk: decoded in C and in numpy, to coefficients and to pixels."""

from __future__ import annotations

import itertools
import random
import struct
import zlib
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, EdgePruneError, PackHeader, open_pack
from edgeprune_formats.codecs import ContentError, get_codec, quantized, sparse_f16
from edgeprune_formats.coefficients import Coefficients
from edgeprune_runtime.decode.backends import Backend, make_decoder
from edgeprune_runtime.decode.plan import make_plan

from ..mutation import changed_bytes
from ..outcomes import WrongError
from .base import Target
from .packs import write_pack

__all__ = ["Quantized", "SparseF16", "SparseF32"]

# Beyond it, sums in another order differ by more than pixels matter.
LARGEST = 1e4
NUMPY_ONLY = (
    mock.patch.object(quantized, "decode_native", return_value=None),
    mock.patch.object(sparse_f16, "positions_native", return_value=None),
)


class _Payload(Target):
    """The arrays of the first chunk of a pack, end to end, a stream last."""

    codec: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with open_pack(write_pack(folder / "sound.h5", self.codec)) as pack:
            self._header = pack.header
            self._samples = len(pack.header.chunk_rows(0))
            self.seeds = [
                b"".join(array.tobytes() for array in pack.read_payload(chunk).values()) for chunk in range(2)
            ]

    def check(self, data: bytes) -> None:
        """Decode twice; what comes out must be the same."""
        arrays = self._arrays(data)
        in_c = self._decoded(arrays)
        with NUMPY_ONLY[0], NUMPY_ONLY[1]:
            in_numpy = self._decoded(arrays)
        if isinstance(in_c, ContentError) or isinstance(in_numpy, ContentError):
            if type(in_c) is not type(in_numpy):
                raise WrongError(f"C and numpy disagree: {in_c!r}, {in_numpy!r}")
            raise EdgePruneError(str(in_c))
        for one, other in zip(in_c.arrays, in_numpy.arrays, strict=True):
            if one.tobytes() != other.tobytes():
                raise WrongError("C and numpy decode other coefficients")
        self._check_pixels(in_c)

    def _arrays(self, data: bytes) -> dict[str, NDArray[Any]]:
        """Return the arrays that bytes stand for; zeros for those that are missing."""
        found, place = {}, 0
        for field in get_codec(self.codec).fields(self._header):
            if field.shape is None:
                found[field.name] = np.frombuffer(data[place:], np.uint8)
                continue
            shape = (self._samples, *field.shape)
            size = int(np.prod(shape)) * field.dtype.itemsize
            raw = data[place : place + size].ljust(size, b"\0")
            found[field.name] = np.frombuffer(raw, field.dtype).reshape(shape)
            place += size
        return found

    def _decoded(self, arrays: dict[str, NDArray[Any]]) -> Coefficients | ContentError:
        codec = get_codec(self.codec)
        problems = codec.problems(self._header, arrays)
        if problems:
            return ContentError(*problems[0])
        try:
            return codec.decode(self._header, arrays, self._samples)
        except ContentError as error:
            return error

    def _check_pixels(self, coefficients: Coefficients) -> None:
        rows = np.arange(self._samples)
        with np.errstate(all="ignore"):
            images = [
                decoder.images(coefficients, rows).astype(np.float64) for decoder in _decoders(self._header)
            ]
        bounded = np.abs(images[-1]).max() < LARGEST
        if len(images) == 2 and bounded and not np.allclose(images[0], images[1], 1e-4, 1e-2):
            raise WrongError("C and scipy decode other pixels")


def _decoders(header: PackHeader) -> list[Any]:
    plan = make_plan(header, normalize=True, resolution=None)
    found: list[Any] = []
    backends: tuple[Backend, ...] = ("native", "scipy")
    for backend in backends:
        try:
            found.append(make_decoder(backend, plan, device="cpu", dtype="float32"))
        except ConfigError:
            continue
    return found


class SparseF32(_Payload):
    """Values and packed positions."""

    name = codec = "sparse-f32"
    what = "values and positions of `sparse-f32`, decoded to pixels in C and by scipy"


class SparseF16(_Payload):
    """Values, and bitmaps of the positions, deflated."""

    name = codec = "sparse-f16"
    what = "values and bitmaps of `sparse-f16`, in C and in numpy"

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Change what was deflated as well."""
        size = self._samples * self._header.channels * self._header.components * 2
        if source.random() < 0.3:
            return super().changed(data, source)
        return data[:size] + _changed_within(data[size:], source)


class Quantized(_Payload):
    """A model, states, words and plain bits."""

    name = codec = "quantized"
    what = "payload of `quantized`, in C and in numpy"

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Change one of the parts of a payload, with sizes that fit, or the sizes."""
        if len(data) < 16 or source.random() < 0.2:
            return super().changed(data, source)
        packed, lanes, words, bits = struct.unpack_from("<IIII", data)
        ends = np.cumsum([16, packed, 4 * lanes, 2 * words, bits], dtype=object).tolist()
        parts = [data[start:stop] for start, stop in itertools.pairwise(ends)]
        number = source.randrange(4)
        if number == 0:
            parts[0] = _changed_within(parts[0], source)
        else:
            changed = changed_bytes(parts[number], source)
            # So that it is a whole number of states or words.
            parts[number] = changed[: len(changed) // 4 * 4]
        sizes = len(parts[0]), len(parts[1]) // 4, len(parts[2]) // 2, len(parts[3])
        return struct.pack("<IIII", *sizes) + b"".join(parts)


def _changed_within(data: bytes, source: random.Random) -> bytes:
    """Change what was deflated, and deflate it."""
    try:
        inside = zlib.decompressobj().decompress(data, 2**16)
    except zlib.error:
        return changed_bytes(data, source)
    if source.random() < 0.3:
        # Moves a count from one frequency to another, so that they still add up.
        content = bytearray(inside)
        for change in (1, -1):
            at = source.randrange(len(content) or 1)
            if content:
                content[at] = (content[at] + change) % 256
        return zlib.compress(bytes(content), 1)
    return zlib.compress(changed_bytes(inside, source), 1)

"""Packs: their bytes, what they hold, and their provenance."""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from click.testing import CliRunner

from edgeprune.commands.inspection.info import command as info
from edgeprune_formats import EdgePruneError, PackFormatError, PackHeader, PackWriter, open_pack, verify_pack
from edgeprune_formats.structure import why_not_plain
from edgeprune_formats.tiles import color_spaces

from ..hdf5_edits import SIZE, edit
from ..hdf5_metadata import blocks, repair
from ..mutation import changed_bytes, changed_json
from ..outcomes import WrongError
from .base import Target

__all__ = [
    "PackContent",
    "PackFile",
    "Provenance",
    "changed_in_place",
    "sound_packs",
    "write_pack",
    "write_repaired",
]

PACKS = (("sparse-f32", "none"), ("sparse-f32", "gzip"), ("sparse-f16", "none"), ("quantized", "none"))
PROVENANCE = {
    "source": {"name": "digits", "sha256": "ab" * 32, "license": "none"},
    "config": {"seed": 0, "codec": "quantized"},
    "coreset": {"score": "entropy", "keep_end": "high", "parameters": {"beta": 0.1}},
    "versions": {"numpy": "2.0"},
    "tile": {"images": 2, "psnr_db": 30.5, "bytes_per_image": {"8": 100.0, "full": 120.0}},
    "result": {"psnr_db": 30.0},
    "merged": [{"pack": "a.h5", "images": 2}, {"pack": "b.h5", "images": 2}],
}


def write_pack(
    path: Path, codec: str, compression: str = "none", *, samples: int = 4, channels: int = 3, bits: int = 8
) -> Path:
    """Write a small sound pack of noise, with scores."""
    quantizes = codec == "quantized"
    header = PackHeader(
        samples=samples,
        channels=channels,
        bits=bits,
        height=6,
        width=5,
        components=30 if quantizes else 8,
        codec=codec,
        chunk_samples=2,
        class_names=("cat", "dog", "bird"),
        mean=(0.5, 0.4, 0.3, 0.2)[:channels],
        std=(0.2, 0.25, 0.3, 0.35)[:channels],
        created="2026-01-01T00:00:00Z",
        color_space=color_spaces(channels)[-1 if quantizes else 0],
        step=0.05 if quantizes else 0.0,
        provenance=PROVENANCE,
    )
    noise = np.random.default_rng(0)
    spectra = noise.normal(size=(samples, channels, 6, 5)).astype(np.float32)
    kept = noise.random((samples, channels, 30)).argsort(axis=2) < header.components
    labels, scores = np.arange(samples) % 3, noise.random(samples).astype(np.float32)
    options: dict[str, Any] = {"compression": compression, "scores": scores}
    with PackWriter(path, header, labels, np.arange(samples), **options) as writer:
        writer.append(spectra, kept.reshape(spectra.shape))
    return path


def sound_packs(folder: Path) -> list[Path]:
    """Write a pack of each codec, one of gray images, and one of planes of 16 bits."""
    return [
        *(
            write_pack(folder / f"{codec}-{compression}.h5", codec, compression)
            for codec, compression in PACKS
        ),
        write_pack(folder / "gray.h5", "quantized", channels=1),
        write_pack(folder / "planes.h5", "sparse-f16", channels=4, bits=16),
    ]


def read_pack(path: Path) -> None:
    """Read all of a pack.

    Raises
    ------
    PackFormatError
        It is refused.
    WrongError
        `verify_pack` finds it sound and reading does not, or the other way round.
    """
    problems = verify_pack(path, isolated=False)
    try:
        with open_pack(path, isolated=False) as pack:
            _ = pack.scores
            for chunk in range(pack.header.chunks):
                pack.read_chunk(chunk)
    except PackFormatError as error:
        if not problems:
            raise WrongError(f"verified, and refused when it is read: {error}") from error
        raise
    if problems:
        raise WrongError(f"read, and not verified: {problems[0]}")


def write_repaired(path: Path, data: bytes) -> None:
    """Write a file with right checksums over its metadata.

    Raises
    ------
    EdgePruneError
        It is not plain, so HDF5 must not open it.
    """
    path.write_bytes(data)
    content = bytearray(data)
    repair(content, blocks(path))
    path.write_bytes(content)
    reason = why_not_plain(path)
    if reason is not None:
        raise EdgePruneError(f"{path}: {reason}")


def tell_of(path: Path) -> None:
    """Print what a pack holds, as ``edgeprune info``."""
    CliRunner().invoke(info, [str(path)], catch_exceptions=False, standalone_mode=False)


class PackFile(Target):
    """The bytes of packs, with right checksums over HDF5's metadata."""

    name = "pack-file"
    what = "bytes of a pack, checksums of HDF5 repaired"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seeds = [path.read_bytes() for path in sound_packs(folder)]

    def check(self, data: bytes) -> None:
        """See `read_pack`; what is not plain is refused before HDF5 opens it."""
        path = self.folder / "pack.h5"
        write_repaired(path, data)
        read_pack(path)

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Change the file, mostly without moving what lies behind."""
        return changed_in_place(data, source, self.seeds)


def changed_in_place(data: bytes, source: random.Random, seeds: list[bytes]) -> bytes:
    """Change a piece of a file, which mostly keeps its length."""
    start = source.randrange(len(data) + 1)
    size = source.choice((8, 32, 256))
    piece = changed_bytes(data[start : start + size], source, seeds)
    if source.random() < 0.95:
        piece = piece[:size].ljust(len(data[start : start + size]), b"\0")
    return data[:start] + piece + data[start + size :]


class PackContent(Target):
    """Instructions that rewrite attributes and arrays of a pack; the first byte chooses the pack."""

    name = "pack-content"
    what = "attributes and arrays of a pack, rewritten by HDF5 with right checksums"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._packs = [path.read_bytes() for path in sound_packs(folder)]
        self.seeds = [bytes([number]) for number in range(len(self._packs))]

    def check(self, data: bytes) -> None:
        """See `read_pack`."""
        path = self.folder / "pack.h5"
        path.write_bytes(self._packs[(data[0] if data else 0) % len(self._packs)])
        edit(path, data[1:])
        read_pack(path)
        tell_of(path)

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Return up to three instructions, new ones or some of before."""
        steps = [source.randbytes(SIZE) for _ in range(source.randint(1, 3))]
        kept = data[1 : 1 + SIZE * source.randint(0, 1)]
        return bytes([source.randrange(len(self._packs))]) + kept + b"".join(steps)


class Provenance(Target):
    """The JSON text of a pack."""

    name = "provenance"
    what = "JSON text of a pack's provenance"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._pack = write_pack(folder / "sound.h5", "sparse-f32").read_bytes()
        with h5py.File(folder / "sound.h5") as file:
            self.seeds = [bytes(file["provenance"][()])]

    def check(self, data: bytes) -> None:
        """See `read_pack`."""
        path = self.folder / "pack.h5"
        path.write_bytes(self._pack)
        text = np.array(data.rstrip(b"\0") or b"\0", f"S{max(1, len(data))}")
        with h5py.File(path, "r+", libver=("v110", "v110")) as file:
            del file["provenance"]
            made = file.create_dataset("provenance", data=text, track_times=False)
            made.attrs["crc32"] = np.uint32(zlib.crc32(made[()].tobytes().ljust(max(1, len(data)), b"\0")))
        read_pack(path)
        tell_of(path)

    def changed(self, data: bytes, source: random.Random) -> bytes:
        """Change values of the JSON text."""
        return changed_json(data, source)

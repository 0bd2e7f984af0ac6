"""Packs of every layout, to be split, merged and repaired, and what they hold of each image."""

from contextlib import contextmanager

import pytest
import small_builds

from edgeprune import BuildConfig, build_pack

CONFIGS = {
    "f32": BuildConfig(codec="sparse-f32", freq_prune=0.5),
    "gzip": BuildConfig(codec="sparse-f32", freq_prune=0.5, compression="gzip"),
    "f16": BuildConfig(codec="sparse-f16", freq_prune=0.5),
    "quantized": BuildConfig(codec="quantized", quality=85),
    "tiles": BuildConfig(codec="quantized", quality=60, tile="8", color="rgb"),
}
_CACHE = {}


@contextmanager
def small_chunks(size=30_000):
    """Store about 8 sparse or 70 quantized images of 20x20 in a chunk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeprune_formats.packs.chunks.TARGET_CHUNK_BYTES", size)
        yield


def packs(tmp_path_factory):
    """Return a folder with a pack of each of `CONFIGS`, which tests leave as they are.

    300 images of 5 classes, in 4 chunks or more. They are built once in a session.
    """
    if "packs" not in _CACHE:
        folder = tmp_path_factory.mktemp("packs")
        spec = small_builds.write_source(folder, images=300, side=20, classes=5)
        with small_chunks():
            for name, config in CONFIGS.items():
                assert build_pack(spec, folder / f"{name}.h5", config).header.chunks > 3
        _CACHE["packs"] = folder
    return _CACHE["packs"]


def stored(pack):
    """Return the stored numbers of each image of an open pack, as bytes."""
    parts = [pack.read_chunk(chunk) for chunk in range(pack.header.chunks)]
    return [
        tuple(array.tobytes() for array in vars(part.take(slice(row, row + 1))).values())
        for part in parts
        for row in range(len(part))
    ]

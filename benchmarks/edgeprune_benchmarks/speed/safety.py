"""What care with a pack costs beside decoding it once: structure, checksums, signatures, processes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgeprune import open_source
from edgeprune_formats import ConfigError, Pack, open_pack
from edgeprune_formats.hdf5 import checksum
from edgeprune_formats.isolation import examine
from edgeprune_formats.structure import mostly_holes, why_not_plain
from edgeprune_runtime import PackLoader
from edgeprune_runtime.signatures import check_signature, make_key, sign_file

from ..codec.packs import ImageSet, build
from ..harness.images import lossless
from ..harness.results import save, spread
from .images import CODECS

__all__ = ["run"]

BATCH = 128


def run(data: Path, output: Path, *, rounds: int) -> None:
    """Measure with each codec and save the result: seconds, and ratios to one epoch of decoding."""
    images = ImageSet.of(open_source(f"npz:{lossless(data)}"), "cifar10")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for codec, options in CODECS.items():
            path = Path(folder) / f"{codec}.h5"
            build(images, path, codec=codec, **options).close()
            rows.append({"codec": codec, "file_bytes": path.stat().st_size, **_costs(path, rounds)})
            shares = ", ".join(f"{name} {ratio:.4f}" for name, ratio in rows[-1]["ratios"].items())
            click.echo(f"{codec}, as multiples of decoding once: {shares}")
    click.echo(save(output, "time-safety", {"images": len(images.labels), "batch": BATCH, "rows": rows}))


def _costs(path: Path, rounds: int) -> dict[str, Any]:
    with open_pack(path, isolated=False) as pack:
        steps = _steps(path, pack)
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds + 1):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - started)
    # The first round fills the page cache.
    found = {name: spread(values[1:]) for name, values in seconds.items()}
    decoding = found.pop("decoding")
    ratios = {name: value["median"] / decoding["median"] for name, value in found.items()}
    return {"decoding_seconds": decoding, "seconds": found, "ratios": ratios}


def _steps(path: Path, pack: Pack) -> dict[str, Callable[[], object]]:
    payloads = [pack.read_payload(chunk) for chunk in range(pack.header.chunks)]
    # Backends and devices differ; this one is everywhere.
    loader = PackLoader(pack, BATCH, normalize=True, backend="scipy", device="cpu", cache_bytes=1)
    return {
        "decoding": lambda: [None for _ in loader],
        "structure": lambda: (mostly_holes(path), why_not_plain(path)),
        "checksums": lambda: [checksum(array) for arrays in payloads for array in arrays.values()],
        **_signature(path),
        "another process opens it": lambda: examine(path),
        "another process verifies it": lambda: examine(path, verify=True),
    }


def _signature(path: Path) -> dict[str, Callable[[], object]]:
    """Return the check of a signature, made here; nothing where the extra for it is not installed."""
    key = path.with_suffix(".key")
    try:
        make_key(key)
    except ConfigError:
        return {}
    sign_file(path, key)
    return {"signature": lambda: check_signature(path, key.with_name(f"{key.name}.pub"))}

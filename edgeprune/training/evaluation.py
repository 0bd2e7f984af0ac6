"""What a network is tested on: a pack or a source of original images, as a pack's network sees them."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, Pack, PackHeader, open_pack
from edgeprune_formats.codecs import memory_bytes
from edgeprune_formats.files import file_sha256
from edgeprune_formats.remote.locations import RemoteFile, as_remote
from edgeprune_formats.targets import LABEL, Column
from edgeprune_runtime import PackLoader
from edgeprune_runtime.system.machine import cpu_quota
from edgeprune_runtime.system.threads import cores
from edgeprune_runtime.training.run_folder.description import read_description

from ..errors import SourceError
from ..sources import Source, check_source
from ..sources.base import source_bits
from ..sources.columns.wanted import as_learned, find_target, open_with_target
from ..sources.decoding.files import as_text
from ..sources.decoding.kinds import peak_of

__all__ = ["Batch", "TestBatches", "TestImages", "may_be_trained_on", "open_test"]

_CHECKED = 32

Batch = tuple[torch.Tensor, torch.Tensor]
# Test images up to this size stay in memory as uint8; more are read again for each epoch.
KEEP_BYTES = 2**28


class TestBatches:
    """Batches ``(images float32 [n, C, H, W], labels int64 [n])``, iterable again and again.

    Images are normalized by the training pack's mean and standard deviation, labels are the training
    pack's; so are those of another target that is learned.

    Parameters
    ----------
    make : callable
        Returns the images in batches, always in the same order.
    wanted : array [N, ...]
        What is to be told of them.
    """

    __test__ = False

    def __init__(self, make: Callable[[], Iterable[torch.Tensor]], wanted: NDArray[Any]) -> None:
        self._make = make
        self._wanted = torch.from_numpy(wanted)

    def __iter__(self) -> Iterator[Batch]:
        start = 0
        for images in self._make():
            yield images, self._wanted[start : start + len(images)]
            start += len(images)


class TestImages:
    """An open test set, before it is decided how much of it memory holds.

    Attributes
    ----------
    name : str
        What it was opened by; of a far pack its URL without credentials, with its digest.
    images_bytes : int
        What holds all its images.
    least_bytes : int
        What is held at least.
    notes : tuple of str
        What a user should know of the source.
    skipped : tuple of str
        A line for each image that cannot be read.
    sha256 : str
        Of the pack's file, or of the source's images that can be read, with labels and names of classes, and
        with the values of another target that is learned, wherever they lie.

    All images are read once, so that one that cannot be read is found before there is anything to lose.
    """

    __test__ = False

    def __init__(
        self,
        spec: str | RemoteFile,
        header: PackHeader,
        *,
        skip_bad: bool = False,
        column: Column | None = None,
    ) -> None:
        self._header = header
        self._images, self.name = _opened(spec, header, column)
        spec = str(as_remote(spec) or spec)
        if isinstance(self._images, Pack):
            own = self._images.header
            shape, chunk = own.shape, own.chunk_samples * memory_bytes(own)
            # One that is used, and one in each thread.
            self.images_bytes, self.least_bytes = len(self._images) * memory_bytes(own), (1 + cores()) * chunk
            self.skipped: tuple[str, ...] = ()
            self._rows = np.arange(len(self._images))
            _require_sound(self._images)
            self.sha256 = file_sha256(self._images.path)
        else:
            shape = self._images.shape
            self._rows, self.skipped, self.sha256 = _readable(self._images, skip_bad)
            self._source_sha256 = self.sha256
            each = math.prod(shape) * source_bits(self._images) // 8
            self.images_bytes, self.least_bytes = len(self._rows) * each, 0
        if shape != header.shape:
            raise ConfigError(f"{spec} has images {shape}, the training pack {header.shape}")
        self.notes: tuple[str, ...] = getattr(self._images, "notes", ())
        column = column or Column(LABEL, "class", header.class_names)
        self._wanted = as_learned(spec, find_target(spec, self._images, column.name).take(self._rows), column)
        if column.name != LABEL and not isinstance(self._images, Pack):
            digest = hashlib.sha256(self.sha256.encode())
            digest.update(np.ascontiguousarray(self._wanted).data)
            self.sha256 = digest.hexdigest()

    def come_from(self, pack: Pack) -> bool:
        """Tell whether images of a pack are among these, by the SHA-256 of their sources and the rows in it.

        Of packs that were merged sources are not compared.
        """
        if not isinstance(self._images, Pack):
            return self._source_sha256 == _source_sha256(pack.header)
        own = _source_sha256(self._images.header)
        is_same = own is not None and own == _source_sha256(pack.header)
        return is_same and bool(np.isin(self._images.source_index, pack.source_index).any())

    def batches(self, batch_size: int, cache_bytes: int, prefetch: int = 2) -> TestBatches:
        """Return the images in batches; up to `cache_bytes` stay in memory, and are read anew otherwise."""
        if isinstance(self._images, Pack):
            loader = PackLoader(
                self._images,
                batch_size,
                device="cpu",
                normalize=(self._header.mean, self._header.std),
                cache_bytes=max(1, cache_bytes),
                prefetch=prefetch,
                targets=(),
            )
            return TestBatches(lambda: (images for (images,) in loader), self._wanted)
        keep = self.images_bytes <= cache_bytes
        batches = _SourceBatches(self._images, self._rows, self._header, batch_size, keep)
        return TestBatches(batches, self._wanted)


def open_test(
    spec: str | RemoteFile, header: PackHeader, *, batch_size: int = 256, column: Column | None = None
) -> TestBatches:
    """Open a test set for a network that is trained from a pack with this header.

    Parameters
    ----------
    spec : str or RemoteFile
        A pack's path or URL, or a source such as ``imagefolder:PATH``, of which the test split is used.
    header : PackHeader
        Of the training pack.
    batch_size : int
        Images in a batch.
    column : Column, optional
        The target that is learned, if not the label.

    Raises
    ------
    ConfigError
        Images of another size, or classes that the training pack does not have.
    SourceError, PackFormatError, RemoteError
        The test set cannot be read.
    """
    return TestImages(spec, header, column=column).batches(batch_size, KEEP_BYTES)


def _opened(spec: str | RemoteFile, header: PackHeader, column: Column | None) -> tuple[Pack | Source, str]:
    """Open a test set, and return what a run notes it by."""
    remote = as_remote(spec)
    if remote is not None:
        pack = open_pack(remote)
        # By its digest it is found in the cache again, without credentials.
        return pack, f"{remote}#sha256={pack.fetched.sha256}" if pack.fetched else str(remote)
    assert not isinstance(spec, RemoteFile)
    spec = os.fsdecode(spec)
    return open_pack(spec) if Path(spec).is_file() else _open_source(spec, header, column), spec


def _open_source(spec: str, header: PackHeader, column: Column | None) -> Source:
    if ":" not in spec and ("/" in spec or "." in spec):
        remedy = f"a pack or a source, such as imagefolder:{spec}"
        if spec.endswith(".h5"):
            remedy = f"a pack, such as one of: edgeprune build SOURCE --split test -o {spec}"
        raise ConfigError(f"{spec}: no such file; `test` takes {remedy}")
    size = header.height if header.height == header.width else None
    return open_with_target(spec, column, split="test", size=size, planes=header.channels)


def _source_sha256(header: PackHeader) -> str | None:
    """Return the SHA-256 of what a pack was built from, where it says so."""
    return _source_of(header.provenance)


def _source_of(provenance: Mapping[str, Any]) -> str | None:
    source = provenance.get("source")
    found = source.get("sha256") if isinstance(source, Mapping) else None
    return found if isinstance(found, str) else None


def may_be_trained_on(images: PackHeader | Source, run_dir: Path) -> bool | None:
    """Tell whether a pack was built from the images that a run's packs were built from.

    None where the run does not say what its packs were built from. Another part of the same split shares no
    image with a part that was trained on. A source without splits is known by its name and its number of
    images.

    Raises
    ------
    TrainingError
        The run's ``config.json`` cannot be read.
    """
    packs = _packs_of(run_dir)
    if all(_source_of(pack) is None for pack in packs):
        return None
    provenance = getattr(images, "provenance", None)
    if provenance is None:
        assert not isinstance(images, PackHeader)
        facts = {"spec": as_text(images.spec), "images": len(images)}
        sources = [pack["source"] for pack in packs if _source_of(pack) is not None]
        is_known = any({name: one.get(name) for name in facts} == facts for one in sources)
        return is_known and bool(getattr(images, "undivided", False))
    return any(
        _source_of(pack) is not None
        and _source_of(pack) == _source_of(provenance)
        and not _are_parts(pack.get("split"), provenance.get("split"))
        for pack in packs
    )


def _packs_of(run_dir: Path) -> list[Mapping[str, Any]]:
    """Return the provenances of the packs that a run was trained from."""
    known = read_description(run_dir).get("provenance", {})
    several = known.get("pack provenances")
    one = {name: known.get(f"pack {name}") for name in ("source", "split")}
    return [
        pack for pack in (one, *(several if isinstance(several, list) else ())) if isinstance(pack, Mapping)
    ]


def _are_parts(one: object, other: object) -> bool:
    """Tell whether these are two parts of one split."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return False
    return one != other and {**one, "part": None} == {**other, "part": None}


def _readable(source: Source, skip_bad: bool) -> tuple[NDArray[np.intp], tuple[str, ...], str]:
    """Return the rows of a test set that can be read, a message for each that cannot, and the SHA-256."""
    # In small batches, of which each thread holds one.
    check = check_source(source, skip_bad=True, batch=_CHECKED, jobs=cpu_quota())
    root = getattr(source, "root", None)
    where = f"{source.spec}: " if root is None else f"{as_text(root)}{os.sep}"
    bad = tuple(where + message for message in check.bad)
    if bad and not skip_bad:
        others = f" (and {len(bad) - 1:,} more like it)" if len(bad) > 1 else ""
        raise SourceError(f"{bad[0]}{others}; pass `skip_bad=True` to leave such test images out")
    return check.good, bad, check.sha256


def _require_sound(pack: Pack) -> None:
    """Raise `PackFormatError` if a chunk of a test pack does not match its checksum."""
    for chunk in range(pack.header.chunks):
        pack.read_chunk(chunk)


class _SourceBatches:
    """Makes normalized batches of some of a source's images."""

    def __init__(
        self, source: Source, rows: NDArray[np.intp], header: PackHeader, batch_size: int, keep: bool
    ) -> None:
        self._source, self._rows, self._batch_size = source, rows, batch_size
        self._mean = torch.tensor(header.mean, dtype=torch.float32).view(1, -1, 1, 1)
        self._std = torch.tensor(header.std, dtype=torch.float32).view(1, -1, 1, 1)
        self._kept = source.read(rows) if keep else None

    def __call__(self) -> Iterator[torch.Tensor]:
        for start in range(0, len(self._rows), self._batch_size):
            part = slice(start, start + self._batch_size)
            rows = self._rows[part]
            pixels = self._source.read(rows) if self._kept is None else self._kept[part]
            yield (torch.from_numpy(pixels).float() / peak_of(pixels) - self._mean) / self._std

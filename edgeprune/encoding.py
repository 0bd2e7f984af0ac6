"""From pixels to the coefficients that a pack stores; shared among processes and kept where it takes long."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import TrainingError

from .masks import energy_mask
from .sources import Source
from .transform import dct2
from .workers import Workers

__all__ = ["Encoded", "Encoder", "MaskStatistics", "Selector", "by_energy"]

Selector = Callable[[NDArray[np.float32]], NDArray[np.bool_]]
# Pixels worked on at a time: in double precision, with its masks, a batch then takes some 100 MiB.
BATCH_VALUES = 4 * 2**20
# Cells of the frequency plane, a side, in which statistics of masks are given.
_CELLS = 32


@dataclass(frozen=True, eq=False)
class Encoded:
    """Some images' spectra and the components to keep.

    Attributes
    ----------
    spectra : float32 [n, C, H, W]
        Zero, in a part that was read back, where the mask is.
    mask : bool [n, C, H, W]
    lost : float
        Energy of what is dropped, which is its squared error (Parseval).
    """

    spectra: NDArray[np.float32]
    mask: NDArray[np.bool_]
    lost: float


@dataclass
class MaskStatistics:
    """How often each frequency is kept, and at what error.

    Attributes
    ----------
    counts : int64 [H, W]
        In how many channels of images each frequency was kept.
    planes : int
        Channels of images in all.
    lost : float
        Energy dropped in all.
    """

    counts: NDArray[np.int64]
    planes: int = 0
    lost: float = field(default=0.0)

    def add(self, part: Encoded) -> None:
        """Count some images."""
        self.counts += part.mask.sum(axis=(0, 1))
        self.planes += part.mask.shape[0] * part.mask.shape[1]
        self.lost += part.lost

    @property
    def psnr(self) -> float:
        """Of the images against the originals in dB, 10 log10(1 / MSE) for pixels on [0, 1]."""
        values = self.planes * self.counts.size
        return float(10 * np.log10(values / self.lost)) if self.lost > 0 else math.inf

    def kept_rate(self) -> list[list[float]]:
        """Return the share of channels that keep a frequency, averaged in at most 32x32 cells."""
        rates = self.counts / max(self.planes, 1)
        for axis, size in enumerate(rates.shape):
            edges = np.unique(np.arange(min(_CELLS, size)) * size // min(_CELLS, size))
            widths = np.diff([*edges, size]).reshape((-1, 1) if axis == 0 else (1, -1))
            rates = np.add.reduceat(rates, edges, axis=axis) / widths
        rounded: list[list[float]] = np.round(rates, 6).tolist()
        return rounded


class Encoder:
    """Encodes the chosen images of a source, in order.

    Parameters
    ----------
    source : Source
    rows : int64 [n]
        In the order of the pack.
    select : callable
        Gives the mask of some spectra.
    """

    def __init__(self, source: Source, rows: NDArray[np.int64], select: Selector) -> None:
        self._source, self._rows, self._select = source, rows, select
        size = max(1, BATCH_VALUES // math.prod(source.shape))
        self._parts = [rows[start : start + size] for start in range(0, len(rows), size)]

    def direct(self) -> Iterator[Encoded]:
        """Yield the images, encoded one part at a time."""
        for rows in self._parts:
            yield self._encode(rows)

    def shared(
        self, folder: Path, facts: dict[str, Any], workers: Workers, tell: Callable[[int], None]
    ) -> Iterator[Encoded]:
        """Yield the images likewise, in the first process, after all processes have encoded their parts.

        Parts wait in files, so that a run that stops goes on where it was.

        Parameters
        ----------
        folder : Path
            For the files; they are used again only if `facts` and rows are the same.
        facts : dict
            What the masks depend on, ready for JSON.
        workers : Workers
        tell : callable
            Is told how many images this process has encoded.
        """
        place = folder / f"parts-{_digest(self._rows, facts)}"
        if workers.rank == 0:
            for stale in folder.glob("parts-*"):
                if stale != place:
                    shutil.rmtree(stale, ignore_errors=True)
            place.mkdir(parents=True, exist_ok=True)
        workers.wait()
        done = 0
        for number in range(workers.rank, len(self._parts), workers.count):
            path = place / f"{number:06d}.safetensors"
            if not path.exists():
                _write_part(path, self._encode(self._parts[number]))
            done += len(self._parts[number])
            tell(done)
        workers.wait()
        if workers.rank == 0:
            for number, rows in enumerate(self._parts):
                yield _read_part(place / f"{number:06d}.safetensors", (len(rows), *self._source.shape))

    def _encode(self, rows: NDArray[np.int64]) -> Encoded:
        spectra = dct2(self._source.read(rows))
        mask = self._select(spectra)
        dropped = spectra[~mask].astype(np.float64)
        return Encoded(spectra, mask, float(dropped @ dropped))


def by_energy(components: int) -> Selector:
    """Return the selector that keeps the components of highest energy."""
    return lambda spectra: energy_mask(spectra, components)


def _digest(rows: NDArray[np.int64], facts: dict[str, Any]) -> str:
    content = json.dumps(facts, sort_keys=True).encode() + rows.astype("<i8").tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _write_part(path: Path, part: Encoded) -> None:
    import torch

    from edgeprune_runtime.checkpoint import write_tensors

    tensors = {
        "values": torch.from_numpy(part.spectra[part.mask]),
        "mask": torch.from_numpy(np.packbits(part.mask)),
        "lost": torch.tensor(part.lost, dtype=torch.float64),
    }
    write_tensors(path, tensors)


def _read_part(path: Path, shape: tuple[int, ...]) -> Encoded:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        mask = np.unpackbits(tensors["mask"], count=math.prod(shape)).reshape(shape).astype(bool)
        spectra = np.zeros(shape, np.float32)
        spectra[mask] = tensors["values"]
        return Encoded(spectra, mask, float(tensors["lost"]))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(
            f"{path}: a part of the pack cannot be read; remove {path.parent}, run it again"
        ) from error

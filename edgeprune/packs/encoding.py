"""From pixels to the coefficients that a pack stores; shared among processes and kept where it takes long."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import PackHeader, PackWriteError
from edgeprune_formats.coefficients import SparseCoefficients
from edgeprune_formats.files import check_free_space
from edgeprune_runtime.errors import ArtifactError, TrainingError

from ..masks.selector import ComponentSelector, Select
from ..sources import Source
from ..work.callbacks import StageProgress
from ..work.processes import Workers
from .dct import dct2

__all__ = ["Encoded", "Encoder", "encoded_parts", "remove_parts"]

# Pixels worked on at a time: in double precision, with its masks, a batch then takes some 100 MiB.
BATCH_VALUES = 4 * 2**20


@dataclass(frozen=True, eq=False)
class Encoded:
    """Some images' spectra and the components to keep.

    Attributes
    ----------
    spectra : float32 [n, C, H, W]
        In a part that was read back, zero where the mask is false.
    mask : bool [n, C, H, W]
    lost : float
        Energy of what is dropped, which is its squared error (Parseval).
    """

    spectra: NDArray[np.float32]
    mask: NDArray[np.bool_]
    lost: float


class Encoder:
    """Encodes the selected images of a source, in order.

    Parameters
    ----------
    source : Source
    rows : int64 [n]
        In the order of the pack.
    select : callable
        Gives the mask of some spectra.
    """

    def __init__(self, source: Source, rows: NDArray[np.int64], select: Select) -> None:
        self._source, self._rows, self._select = source, rows, select
        size = max(1, BATCH_VALUES // math.prod(source.shape))
        self._parts = [rows[start : start + size] for start in range(0, len(rows), size)]

    def sample(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the spectra and masks of the first `count` images; packs store images in random order."""
        part = self._encode(self._rows[:count])
        return part.spectra, part.mask

    def direct(self) -> Iterator[Encoded]:
        """Yield the images, encoded one part at a time."""
        for rows in self._parts:
            yield self._encode(rows)

    def shared(
        self,
        folder: Path,
        facts: dict[str, Any],
        workers: Workers,
        tell: Callable[[int, int], None] | None = None,
    ) -> Iterator[Encoded]:
        """Yield the images likewise, in the first process, after all processes have encoded their parts.

        Parts wait in files, so that a run that stops goes on where it was; `remove_parts` removes them.

        Parameters
        ----------
        folder : Path
            For the files; they are used again only if `facts` and rows are the same.
        facts : dict
            What the masks depend on, ready for JSON.
        workers : Workers
        tell : callable, optional
            Called as ``tell(done, total)`` with the images that this process has encoded, and is to encode.

        Raises
        ------
        PackWriteError
            A part cannot be written.
        ArtifactError
            A part that was written is gone or damaged.
        SourceError
            An image cannot be read.
        """
        place = folder / f"parts-{_digest(self._rows, facts)}"
        if workers.rank == 0:
            remove_parts(folder, but=place)
            _make_folder(place)
        workers.wait()
        numbers = range(workers.rank, len(self._parts), workers.count)
        done, total = 0, sum(len(self._parts[number]) for number in numbers)
        for number in numbers:
            path = _part_path(place, number)
            if not path.exists():
                _write_part(path, self._encode(self._parts[number]))
            done += len(self._parts[number])
            if tell is not None:
                tell(done, total)
        workers.wait()
        if workers.rank == 0:
            for number, rows in enumerate(self._parts):
                yield _read_part(_part_path(place, number), (len(rows), *self._source.shape))

    def _encode(self, rows: NDArray[np.int64]) -> Encoded:
        spectra = dct2(self._source.read(rows))
        mask = self._select(spectra)
        dropped = spectra[~mask].astype(np.float64)
        return Encoded(spectra, mask, float(dropped @ dropped))


def encoded_parts(
    encoder: Encoder,
    selector: ComponentSelector,
    header: PackHeader,
    folder: Path,
    workers: Workers,
    progress: StageProgress | None = None,
) -> Iterator[Encoded]:
    """Return the encoded images of a pack, through files where masks take long or processes share the work.

    Raises
    ------
    PackWriteError
        The disk has no room for the files.
    """
    if selector.file is None and workers.count == 1:
        remove_parts(folder)
        return encoder.direct()
    if workers.rank == 0:
        # The files hold as much as the pack, which is beside them.
        check_free_space(folder, 2 * header.samples * SparseCoefficients.image_bytes(header))
    # Not all of the provenance: versions, for one, differ from call to call and change no mask.
    facts = {**selector.facts, "components": selector.components, "source": header.provenance["source"]}
    tell = None if progress is None else partial(progress, "selecting")
    return encoder.shared(folder, facts, workers, tell)


def remove_parts(folder: Path, *, but: Path | None = None) -> None:
    """Remove what `Encoder.shared` has left in a folder, except `but`, and the folder if nothing is left."""
    for parts in folder.glob("parts-*"):
        if parts != but:
            shutil.rmtree(parts, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def _digest(rows: NDArray[np.int64], facts: dict[str, Any]) -> str:
    content = json.dumps([facts, BATCH_VALUES], sort_keys=True).encode() + rows.astype("<i8").tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _part_path(place: Path, number: int) -> Path:
    return place / f"{number:06d}.safetensors"


def _make_folder(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PackWriteError(f"{place}: cannot be made ({error.strerror}); choose another folder") from error


def _checksum(arrays: dict[str, NDArray[Any]]) -> int:
    checksum = 0
    for name in ("values", "mask", "lost"):
        checksum = zlib.crc32(arrays[name].tobytes(), checksum)
    return checksum


def _write_part(path: Path, part: Encoded) -> None:
    import torch

    from edgeprune_runtime.training.checkpoint import write_tensors

    arrays: dict[str, NDArray[Any]] = {
        "values": part.spectra[part.mask],
        "mask": np.packbits(part.mask),
        "lost": np.array(part.lost),
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    try:
        write_tensors(path, {**tensors, "crc32": torch.tensor(_checksum(arrays))})
    except TrainingError as error:
        reason = getattr(error.__cause__, "strerror", None) or error.__cause__
        raise PackWriteError(
            f"{path}: cannot be written ({reason}); free some space, and run the same command again to go on"
        ) from error


def _read_part(path: Path, shape: tuple[int, ...]) -> Encoded:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        if _checksum(arrays) != int(arrays["crc32"]):
            raise ValueError("it does not match its checksum")
        mask = np.unpackbits(arrays["mask"], count=math.prod(shape)).reshape(shape).astype(bool)
        spectra = np.zeros(shape, np.float32)
        spectra[mask] = arrays["values"]
        return Encoded(spectra, mask, float(arrays["lost"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(
            f"{path}: encoded images cannot be read ({reason}); remove {path.parent}, and run it again"
        ) from error

"""The images of a source as they were decoded, kept in a file while a run reads them epoch after epoch.

The file has a place for each image of the source: its pixels, and behind them their CRC-32. A place that was
never written is a hole, whose checksum does not match; nor does that of one that was damaged, or is being
written. Such an image is read from the source. So the file may be incomplete, and changes no pixel.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from edgeprune_formats import __version__
from edgeprune_formats.locks import LOCK_FILE, open_lock
from edgeprune_runtime.errors import TrainingError
from edgeprune_runtime.training.progress.signals import TrainingInterrupted

from ..sources import Source, source_targets
from ..sources.arrays import ArraySource
from ..sources.base import Rows, source_bits
from ..sources.folders.folder import FolderSource
from ..sources.tables.csv_table import CsvSource
from ..text import bytes_text
from .processes import Workers, local_rank
from .temporary import foreign_name, images_folder

__all__ = ["CachedSource", "cached", "channels_last", "remove_images"]

_PIXELS_FILE, _STAMP_FILE, _RUN_FILE = "pixels", "source.json", "run"
_OWN = re.compile("|".join(map(re.escape, (LOCK_FILE, _PIXELS_FILE, _STAMP_FILE, _RUN_FILE))))
_CHECKSUM_BYTES = 4
# What stays free for all else that is written: the output is a fraction of the pixels.
_LEAST_FREE, _SHARE_FREE = 2**30, 0.1
# After these the same command goes on, and can use what is decoded.
_GOES_ON = (TrainingInterrupted, TrainingError, KeyboardInterrupt)

_INSTEAD = "images are decoded in every epoch"

_Tell = Callable[[str], None]


def channels_last(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return [n, C, H, W] as [n, H, W, C], in this order in memory."""
    count, channels, height, width = pixels.shape
    images = np.empty((count, height, width, channels), pixels.dtype)
    # Plane by plane is four times as fast as NumPy's copy of the transposed array.
    for channel in range(channels):
        images[..., channel] = pixels[:, channel]
    return images


class CachedSource:
    """A source that decodes each image once; implements `Source`, in any thread.

    Parameters
    ----------
    source : Source
        Where an image comes from that the file does not hold.
    path : Path
        The file, there already; several processes may share it.
    tell : callable, optional
        Called with one line when the disk is full. From then on the file takes no more room.

    Raises
    ------
    OSError
        The file cannot be opened.
    """

    def __init__(self, source: Source, path: Path, tell: _Tell | None = None) -> None:
        self.spec, self.split, self.license = source.spec, source.split, source.license
        self.class_names, self.labels, self.shape = source.class_names, source.labels, source.shape
        self.targets = source_targets(source)
        self._source, self._path, self._tell = source, path, tell
        self._dtype = np.dtype(f"u{source_bits(source) // 8}")
        self._step = math.prod(source.shape) * self._dtype.itemsize + _CHECKSUM_BYTES
        self._descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        # Not at the end of a block: a thread that still reads must never meet another file of that number.
        weakref.finalize(self, os.close, self._descriptor)
        self._takes_more, self._lock = True, threading.Lock()

    def __len__(self) -> int:
        return len(self._source)

    def __getattr__(self, name: str) -> Any:
        # What only some sources have, such as notes and stored_bytes.
        return getattr(self._source, name)

    def name(self, row: int) -> str:
        """Return how a message calls image `row`."""
        return self._source.name(row)

    def read(self, rows: Rows) -> NDArray[np.uint8 | np.uint16]:
        """Read some images, [n, C, H, W]; see `Source.read`."""
        images = self.read_channels_last(rows)
        pixels = np.empty((len(images), *self.shape), self._dtype)
        for channel in range(self.shape[0]):
            pixels[:, channel] = images[..., channel]
        return pixels

    def read_channels_last(self, rows: Rows) -> NDArray[Any]:
        """Read some images, [n, H, W, C]; see `Source.read`."""
        channels, height, width = self.shape
        images = np.empty((len(rows), height, width, channels), self._dtype)
        missing = [at for at, row in enumerate(rows) if not self._get(int(row), images[at])]
        if missing:
            chosen = np.asarray(rows)[missing]
            images[missing] = channels_last(self._source.read(chosen))
            for at, row in zip(missing, chosen.tolist(), strict=True):
                self._put(row, images[at])
        return images

    def empty(self) -> None:
        """Give the disk back what the file takes; from then on the source is read."""
        self._takes_more = False
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)

    def _get(self, row: int, image: NDArray[Any]) -> bool:
        """Read an image from the file, and tell whether it was there."""
        checksum = bytearray(_CHECKSUM_BYTES)
        try:
            count = os.preadv(self._descriptor, [image.data, checksum], row * self._step)
        except OSError:
            return False
        return count == self._step and any(checksum) and checksum == _checksum(image)

    def _put(self, row: int, image: NDArray[Any]) -> None:
        """Write an image to the file, if there is room."""
        # Of another length: another process of the run has found the disk full.
        if self._takes_more and os.fstat(self._descriptor).st_size != len(self) * self._step:
            self._takes_more = False
        if not self._takes_more:
            return
        try:
            if os.pwritev(self._descriptor, [image.data, _checksum(image)], row * self._step) < self._step:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with self._lock:
                told = not self._takes_more
                self.empty()
            if not told and self._tell is not None:
                self._tell(f"warning: {self._path.parent}: {_reason(error)}; {_INSTEAD}")


def _reason(error: OSError) -> str:
    return "the disk is full" if error.errno == errno.ENOSPC else str(error.strerror)


def _checksum(image: NDArray[Any]) -> bytes:
    return zlib.crc32(image.data).to_bytes(_CHECKSUM_BYTES, "little")


@contextmanager
def cached(
    source: Source,
    path: Path,
    *,
    wanted: bool,
    workers: Workers | None = None,
    tell: _Tell | None = None,
) -> Iterator[Source]:
    """Give a source that decodes each image once until the block ends, if the disk has room.

    The images are in `edgeprune.work.temporary.images_folder`, one for each node of a run. It is locked, and
    goes away at the end of the block, but not when the run was stopped and can go on, nor when the process is
    killed. The next block of the same path goes on with it if the files of the source are the same by names,
    sizes and times, and removes it otherwise.

    Parameters
    ----------
    source : Source
        Given as it is where its images are in memory or kept already.
    path : Path
        The output of the run.
    wanted : bool
        Whether images are read from the source again and again; of several processes any can want it.
    workers : Workers, optional
        The processes of the run.
    tell : callable, optional
        Called with one line on what the file takes, or why there is none.
    """
    workers, tell = workers or Workers(), tell or (lambda line: None)
    wanted = wanted and not isinstance(source, CachedSource | ArraySource)
    if not workers.any(wanted):
        yield source
        return
    folder, run = images_folder(path), workers.from_first(secrets.token_bytes(16))
    with ExitStack() as stack:
        owns = wanted and local_rank() == 0 and stack.enter_context(_made(folder, source, run, tell))
        workers.wait()
        found = _opened(folder, source, run, tell) if wanted else None
        goes_on = False
        try:
            yield found or source
        except _GOES_ON:
            goes_on = True
            raise
        finally:
            if owns and not goes_on:
                if found is not None:
                    found.empty()
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _made(folder: Path, source: Source, run: bytes, tell: _Tell) -> Iterator[bool]:
    """Make and lock the folder and its file until the block ends, and tell whether they are this run's."""
    with ExitStack() as stack:
        owns = False
        try:
            folder.mkdir(0o700, exist_ok=True)
            _refuse_foreign(folder)
            lock, held = open_lock(folder / LOCK_FILE)
            stack.callback(os.close, lock)
            # Another run of the same output has it, which is for the run itself to refuse.
            owns = held is not False and not folder.is_symlink()
            if owns:
                tell(_prepared(folder, source, run))
        except OSError as error:
            tell(f"warning: {folder}: {_reason(error)}; {_INSTEAD}")
            if owns:
                shutil.rmtree(folder, ignore_errors=True)
        yield owns


def _refuse_foreign(folder: Path) -> None:
    """Raise `OSError` where a folder of this name holds other files, which must not go away with it."""
    if foreign_name(folder, _OWN) is not None:
        raise OSError(errno.EEXIST, "holds other files")


def _prepared(folder: Path, source: Source, run: bytes) -> str:
    """Make the file, or take the one that is there, and return a line on it; without room there is none."""
    file, stamp = folder / _PIXELS_FILE, _stamp(source)
    size = len(source) * (math.prod(source.shape) * source_bits(source) // 8 + _CHECKSUM_BYTES)
    if stamp is None or not _is_of(folder, stamp, size):
        for old in (folder / _STAMP_FILE, file):
            old.unlink(missing_ok=True)
    need = size - (file.stat().st_blocks * 512 if file.exists() else 0)
    free = shutil.disk_usage(folder).free
    if need + max(_LEAST_FREE, size * _SHARE_FREE) > free:
        shutil.rmtree(folder, ignore_errors=True)
        sizes = f"{bytes_text(size)} of decoded images, {bytes_text(free)} are free"
        return f"warning: {folder.parent}: no room for {sizes}; {_INSTEAD}"
    if not file.exists():
        with file.open("xb") as stream:
            stream.truncate(size)
        if stamp is not None:
            (folder / _STAMP_FILE).write_text(json.dumps(stamp) + "\n")
    (folder / _RUN_FILE).write_bytes(run)
    return f"{folder}: keeps the decoded images until the end, up to {bytes_text(size)}"


def _is_of(folder: Path, stamp: dict[str, str], size: int) -> bool:
    """Tell whether a folder holds images of the source that has this stamp."""
    with suppress(OSError, ValueError):
        is_whole = (folder / _PIXELS_FILE).lstat().st_size == size
        return is_whole and bool(json.loads((folder / _STAMP_FILE).read_text()) == stamp)
    return False


def _stamp(source: Source) -> dict[str, str] | None:
    """Return what the decoded pixels depend on; None for a source whose files are not known."""
    if not isinstance(source, FolderSource | CsvSource):
        return None
    digest = hashlib.sha256()
    for row in range(len(source)):
        path = source.content(row)
        digest.update(os.fsencode(path))
        with suppress(OSError):
            status = os.stat(path)  # noqa: PTH116 - a Path for each takes long
            digest.update(b"\0%d\0%d\0" % (status.st_size, status.st_mtime_ns))
    versions = f"edgeprune {__version__}, pillow {PIL.__version__}"
    shape = f"{source.shape} {source.wanted.kind}{', fast JPEG' if source.fast_jpeg else ''}"
    return {"shape": shape, "files": digest.hexdigest(), "by": versions}


def _opened(folder: Path, source: Source, run: bytes, tell: _Tell) -> CachedSource | None:
    """Open the file, unless there is none, or it is that of another run."""
    with suppress(OSError):
        if (folder / _RUN_FILE).read_bytes() == run:
            return CachedSource(source, folder / _PIXELS_FILE, tell)
    return None


def remove_images(path: Path) -> None:
    """Remove what a killed run for `path` has left decoded, unless another process works with it."""
    folder = images_folder(path)
    with suppress(OSError):
        _refuse_foreign(folder)
        lock, held = open_lock(folder / LOCK_FILE)
        if held is not False:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)

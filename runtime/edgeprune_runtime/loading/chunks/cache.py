"""Chunks of a pack held in memory, within a bound, in one array from which batches are gathered."""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from concurrent.futures import Future, wait
from numbers import Real
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, Pack, PackFormatError
from edgeprune_formats.codecs import memory_bytes, stored_bytes
from edgeprune_formats.coefficients import Coefficients

from ...checks import shortened
from ...system.threads import cores, pool
from ..order.epochs import epoch_order

__all__ = ["DEFAULT_CACHE_BYTES", "ChunkCache", "SmallCacheError", "whole_bytes"]

DEFAULT_CACHE_BYTES = 2**30


class SmallCacheError(ConfigError):
    """A state needs more decoded chunks than the bound holds; `cache_bytes` is a bound that does.

    So is every larger one.
    """

    def __init__(self, cache_bytes: int) -> None:
        super().__init__(f"cannot resume: the order needs `cache_bytes={cache_bytes}` or more")
        self.cache_bytes = cache_bytes


def whole_bytes(cache_bytes: Any) -> int:
    """Return a bound in bytes, which may be written as 1e9 or be infinite, as a whole number.

    Raises
    ------
    ConfigError
        It is below 1, or no number.
    """
    is_number = isinstance(cache_bytes, Real) and not isinstance(cache_bytes, bool)
    if not (is_number and cache_bytes >= 1):
        given = shortened(cache_bytes)
        raise ConfigError(f"`cache_bytes` must be positive, not {given}; give a number of bytes")
    return int(min(cache_bytes, sys.maxsize))


class ChunkCache:
    """The most recently used chunks of a pack, side by side, so that a batch is one gather.

    If all chunks fit the bound, all are held decoded once they have been used. If not, but the chunks as
    they are stored take at most half of it, these are kept, and what is left holds as many decoded chunks as
    it can. Otherwise chunks are read from the file each time. Chunks are decoded where they are held.

    Parameters
    ----------
    pack : Pack
    cache_bytes : int
        Bound on the memory held; at least one chunk is held whatever the bound. Where the window takes all
        that fits, chunks that `prepare` names come on top, one a core at most. So does what decoding needs
        for a moment: as much as a chunk, in each thread.
    prefetch : bool
        Leave half of the decoded chunks that fit for those that `prepare` names.

    Attributes
    ----------
    slots : int
        How many decoded chunks fit.
    window : int
        How many of them are held for use; the others are for those that are prepared.
    """

    def __init__(self, pack: Pack, cache_bytes: int = DEFAULT_CACHE_BYTES, *, prefetch: bool = False) -> None:
        cache_bytes = whole_bytes(cache_bytes)
        header = pack.header
        self.pack = pack
        self.cache_bytes = cache_bytes
        self.chunk_bytes = header.chunk_samples * memory_bytes(header)
        self._payload_bytes = self._kept_within(cache_bytes)
        room = (cache_bytes - self._payload_bytes) // self.chunk_bytes
        self.slots = max(1, min(header.chunks, room))
        self._prefetch = prefetch
        self.reserve(max(1, self.slots // 2) if prefetch and self.slots < header.chunks else self.slots)

    def reserve(self, window: int) -> None:
        """Hold `window` decoded chunks for use, up to `slots`, and leave the others for `prepare`."""
        self.window = window
        self._spare = self.slots - window
        if self._prefetch and self._spare == 0:
            self._spare = min(cores(), self.pack.header.chunks - window)
        self._process = os.getpid()
        self._places = window + self._spare
        self._payloads: dict[int, Any] = {}
        self._buffer: Any = None
        self._used: OrderedDict[int, int] = OrderedDict()
        self._free = list(range(self._places - 1, -1, -1))
        self._slot_of = np.full(self.pack.header.chunks, -1, np.int64)
        # Chunks being decoded, and those that nobody wants any more but that are still being written.
        self._pending: dict[int, tuple[int, Future[None]]] = {}
        self._unwanted: list[tuple[int, Future[None]]] = []

    def _kept_within(self, cache_bytes: int) -> int:
        """Return how much of a bound the chunks as they are stored take: nothing where they are not kept."""
        header = self.pack.header
        if header.chunks * self.chunk_bytes <= cache_bytes:
            return 0
        # Arrays of a fixed size lie in memory as they are decompressed.
        in_memory = max(self.pack.payload_bytes, len(self.pack) * stored_bytes(header))
        return in_memory if in_memory <= cache_bytes // 2 else 0

    def bytes_for(self, window: int) -> int:
        """Return a bound in bytes that holds so many decoded chunks for use, as every larger one does."""
        whole = self.pack.header.chunks * self.chunk_bytes
        # What the stored chunks take of larger bounds, if they are ever kept beside some of the decoded.
        return min(whole, window * self.chunk_bytes + self._kept_within(whole - 1))

    def has_window(self, window: object) -> TypeGuard[int]:
        """Tell whether this can be the window of the pack."""
        return type(window) is int and 1 <= window <= max(1, self.pack.header.chunks)

    def resume(self, window: object) -> None:
        """Hold as many decoded chunks for use as when a state was taken: the order depends on it.

        Raises
        ------
        ConfigError
            It is no window of this pack, or, as `SmallCacheError`, one that does not fit the bound.
        """
        if not self.has_window(window):
            raise ConfigError(f"cannot resume: window is {window}")
        if window > self.slots:
            raise SmallCacheError(self.bytes_for(window))
        if window != self.window:
            self.reserve(window)

    def order(
        self, *, seed: int, epoch: int, shuffle: bool, labels: NDArray[np.integer[Any]] | None = None
    ) -> NDArray[np.int64]:
        """Return the images of one epoch in visiting order, int64 [N]; see `epoch_order`."""
        header = self.pack.header
        return epoch_order(
            header.samples,
            header.chunk_samples,
            self.window,
            seed=seed,
            epoch=epoch,
            shuffle=shuffle,
            labels=labels,
        )

    def chunk_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the chunks that images are in."""
        return rows // self.pack.header.chunk_samples

    def __getstate__(self) -> dict[str, Any]:
        return {
            "pack": self.pack,
            "cache_bytes": self.cache_bytes,
            "prefetch": self._prefetch,
            "window": self.window,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["pack"], state["cache_bytes"], prefetch=state["prefetch"])  # type: ignore[misc]
        self.reserve(state["window"])

    def prepare(self, chunks: NDArray[np.int64]) -> None:
        """Start to decode the chunks that are needed next, the soonest first, as far as there is room.

        Chunks that were prepared, are not held, and are not named again, are forgotten.
        """
        self._own()
        # Where all fit there is room in the window.
        room = self._spare or (cores() if self.window == self.pack.header.chunks else 0)
        wanted = chunks[self._slot_of[chunks] < 0][:room].tolist()
        for chunk in set(self._pending).difference(wanted):
            self._cancel(chunk)
        self._reclaim()
        for chunk in wanted:
            if chunk not in self._pending and self._free:
                self._start(chunk, self._free.pop())

    def _own(self) -> None:
        """Begin anew in a forked process: the threads that were writing are not there."""
        if self._process != os.getpid():
            self.reserve(self.window)

    def _start(self, chunk: int, slot: int) -> None:
        try:
            place = self._place(slot)
        except MemoryError:
            self._free.append(slot)
            raise
        self._pending[chunk] = slot, pool("chunks", cores()).submit(self._read, chunk, place)

    def _cancel(self, chunk: int) -> None:
        slot, future = self._pending.pop(chunk)
        if future.cancel():
            self._free.append(slot)
        else:
            self._unwanted.append((slot, future))

    def _reclaim(self, *, patient: bool = False) -> None:
        """Take back the places of unwanted chunks that are written; wait for them if `patient`."""
        if patient:
            wait([future for _, future in self._unwanted])
        done = [future.done() for _, future in self._unwanted]
        self._free += [slot for (slot, _), over in zip(self._unwanted, done, strict=True) if over]
        self._unwanted = [item for item, over in zip(self._unwanted, done, strict=True) if not over]

    def _place(self, slot: int) -> Coefficients:
        """Return the part of the buffer for one chunk."""
        size = self.pack.header.chunk_samples
        if self._buffer is None:
            self._buffer = self.pack.empty_coefficients(self._places * size)
        part: Coefficients = self._buffer.take(slice(slot * size, (slot + 1) * size))
        return part

    def _read(self, chunk: int, place: Coefficients) -> None:
        """Decode a chunk where it will be held; called in any thread."""
        if not self._payload_bytes:
            self.pack.read_chunk(chunk, place)
            return
        payload = self._payloads.get(chunk)
        if payload is None:
            payload = self._payloads[chunk] = self.pack.read_payload(chunk)
        self.pack.decode_payload(chunk, payload, place)

    def find(self, rows: NDArray[np.int64]) -> tuple[Coefficients, NDArray[np.int64]]:
        """Return coefficients and where in them the images at `rows` are, in that order.

        They are the cache itself, and valid until the next call, unless the images lie in more chunks than
        fit.

        Raises
        ------
        PackFormatError
            A chunk is damaged.
        """
        self._own()
        chunk_of = self.chunk_of(rows)
        needed = np.unique(chunk_of)
        if len(needed) <= self.window:
            return self._hold(rows, chunk_of, needed)
        # Those that are held are served first, before others take their place.
        needed = needed[np.argsort(self._slot_of[needed] < 0, kind="stable")]
        whole: Any = None
        order = np.empty(len(rows), np.int64)
        filled = 0
        for start in range(0, len(needed), self.window):
            some = needed[start : start + self.window]
            inside = np.nonzero(np.isin(chunk_of, some))[0]
            coefficients, where = self._hold(rows[inside], chunk_of[inside], some)
            whole = coefficients.empty_like(len(rows)) if whole is None else whole
            whole.write(filled, coefficients.take(where))
            order[inside] = np.arange(filled, filled + len(inside))
            filled += len(inside)
        return whole, order

    def unreadable(self, rows: NDArray[np.int64]) -> dict[int, PackFormatError]:
        """Return the chunks of the images at `rows` that cannot be read, each tried twice, and why not.

        Raises
        ------
        PackFormatError
            It is not a chunk that cannot be read, but the file.
        """
        found = {}
        for chunk in np.unique(self.chunk_of(rows)).tolist():
            # What a bus or a card fails to give once, it may give the next time.
            error = self._try(chunk) and self._try(chunk)
            if error is not None:
                found[chunk] = error
        return found

    def _try(self, chunk: int) -> PackFormatError | None:
        try:
            if chunk not in self._used:
                self._load([chunk], [chunk])
        except PackFormatError as error:
            if not error.problem.location.startswith("/samples"):
                raise
            return error
        return None

    def _hold(
        self, rows: NDArray[np.int64], chunk_of: NDArray[np.int64], needed: NDArray[np.int64]
    ) -> tuple[Coefficients, NDArray[np.int64]]:
        wanted = needed.tolist()
        for chunk in wanted:
            if chunk in self._used:
                self._used.move_to_end(chunk)
        self._load([chunk for chunk in wanted if chunk not in self._used], wanted)
        size = self.pack.header.chunk_samples
        return self._buffer, self._slot_of[chunk_of] * size + rows % size

    def _load(self, chunks: list[int], wanted: list[int]) -> None:
        """Decode chunks, with as many threads as there are cores, and hold them."""
        if len(chunks) == 1 and chunks[0] not in self._pending:
            slot = self._slot(wanted)
            try:
                self._read(chunks[0], self._place(slot))
            except BaseException:
                self._free.append(slot)
                raise
            self._keep(chunks[0], slot)
            return
        try:
            for number, chunk in enumerate(chunks):
                for other in chunks[number : number + cores()]:
                    if other not in self._pending:
                        self._start(other, self._slot(wanted))
                self._pending[chunk][1].result()
                self._keep(chunk, self._pending.pop(chunk)[0])
        finally:
            for chunk in chunks:
                if chunk in self._pending:
                    self._cancel(chunk)

    def _slot(self, wanted: list[int]) -> int:
        """Return a place for a chunk, if need be that of the chunk not wanted whose use was longest ago."""
        self._reclaim()
        if not self._free:
            for chunk in self._used:
                if chunk not in wanted:
                    self._evict(chunk)
                    break
            else:
                self._reclaim(patient=True)
        return self._free.pop()

    def _evict(self, chunk: int) -> None:
        self._free.append(self._used.pop(chunk))
        self._slot_of[chunk] = -1

    def _keep(self, chunk: int, slot: int) -> None:
        if len(self._used) == self.window:
            self._evict(next(iter(self._used)))
        self._used[chunk] = slot
        self._slot_of[chunk] = slot

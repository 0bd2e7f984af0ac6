"""Chunks of a pack held in memory, within a bound, in one array from which batches are gathered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import Block, ConfigError, Pack, stored_bytes

from ._threads import cores, pool, working

__all__ = ["DEFAULT_CACHE_BYTES", "ChunkCache"]

DEFAULT_CACHE_BYTES = 2**30


class ChunkCache:
    """The most recently used chunks of a pack, side by side, so that a batch is one gather.

    If all chunks fit the bound, all are held decoded once they have been used. If not, but the chunks as
    they are stored take at most half of it, these are kept, and what is left holds as many decoded chunks as
    it can. Otherwise chunks are read from the file each time.

    Parameters
    ----------
    pack : Pack
    cache_bytes : int
        Bound on the memory held; at least one chunk is held whatever the bound. The chunks that are being
        decoded at a moment, one a core at most, come on top.
    ahead : bool
        Leave half of the decoded chunks that fit for those that `prepare` names.

    Attributes
    ----------
    slots : int
        How many decoded chunks fit.
    window : int
        How many of them are held for use; the others are for those that are prepared.
    """

    def __init__(self, pack: Pack, cache_bytes: int = DEFAULT_CACHE_BYTES, *, ahead: bool = False) -> None:
        if cache_bytes < 1:
            raise ConfigError(f"cache_bytes must be positive, not {cache_bytes}")
        header = pack.header
        self.pack = pack
        self.cache_bytes = cache_bytes
        self.chunk_bytes = header.chunk_samples * header.memory_bytes
        self._payload_bytes = 0
        if header.chunks * self.chunk_bytes > cache_bytes:
            # Arrays of a fixed size lie in memory as they are decompressed.
            in_memory = max(pack.payload_bytes, len(pack) * stored_bytes(header))
            if in_memory <= cache_bytes // 2:
                self._payload_bytes = in_memory
        room = (cache_bytes - self._payload_bytes) // self.chunk_bytes
        self.slots = max(1, min(header.chunks, room))
        self._ahead = ahead
        self.reserve(max(1, self.slots // 2) if ahead and self.slots < header.chunks else self.slots)

    def reserve(self, window: int) -> None:
        """Hold `window` decoded chunks for use, up to `slots`, and leave the others for `prepare`."""
        self.window = window
        self._payloads: dict[int, Any] = {}
        self._buffer: Any = None
        self._used: OrderedDict[int, int] = OrderedDict()
        self._slot_of = np.full(self.pack.header.chunks, -1, np.int64)
        self._pending: dict[int, Future[Block]] = {}

    def bytes_for(self, window: int) -> int:
        """Return a bound in bytes that holds so many decoded chunks for use."""
        return window * self.chunk_bytes + self._payload_bytes

    def __getstate__(self) -> dict[str, Any]:
        return {
            "pack": self.pack,
            "cache_bytes": self.cache_bytes,
            "ahead": self._ahead,
            "window": self.window,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["pack"], state["cache_bytes"], ahead=state["ahead"])  # type: ignore[misc]
        self.reserve(state["window"])

    def prepare(self, chunks: NDArray[np.int64]) -> None:
        """Start to decode the chunks that are needed next, the soonest first, as far as there is room.

        Chunks that were prepared, are not held, and are not named again, are forgotten.
        """
        room = self.slots - self.window or cores()
        wanted = chunks[self._slot_of[chunks] < 0][:room].tolist()
        for chunk in set(self._pending).difference(wanted):
            self._pending.pop(chunk).cancel()
        for chunk in wanted:
            self._start(chunk)

    def _start(self, chunk: int) -> None:
        if chunk not in self._pending:
            self._pending[chunk] = pool("chunks", cores()).submit(self._read, chunk)

    def _read(self, chunk: int) -> Block:
        """Return a chunk, decoded; called in any thread."""
        with working(part=True):
            return self._decode(chunk)

    def _decode(self, chunk: int) -> Block:
        payload = self._payloads.get(chunk)
        if payload is None:
            payload = self.pack.read_payload(chunk)
            if self._payload_bytes:
                self._payloads[chunk] = payload
        return self.pack.decode_payload(chunk, payload)

    def find(self, rows: NDArray[np.int64]) -> tuple[Block, NDArray[np.int64]]:
        """Return a block and where in it the images at `rows` are, in that order.

        The block is the cache itself, so it is valid until the next call, unless the images lie in more
        chunks than fit.

        Raises
        ------
        PackFormatError
            A chunk is damaged.
        """
        chunk_of = rows // self.pack.header.chunk_samples
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
            block, where = self._hold(rows[inside], chunk_of[inside], some)
            whole = block.empty_like(len(rows)) if whole is None else whole
            whole.write(filled, block.take(where))
            order[inside] = np.arange(filled, filled + len(inside))
            filled += len(inside)
        return whole, order

    def _hold(
        self, rows: NDArray[np.int64], chunk_of: NDArray[np.int64], needed: NDArray[np.int64]
    ) -> tuple[Block, NDArray[np.int64]]:
        wanted = needed.tolist()
        for chunk in wanted:
            if chunk in self._used:
                self._used.move_to_end(chunk)
        for chunk, block in self._loaded([chunk for chunk in wanted if chunk not in self._used]):
            self._keep(chunk, block)
        size = self.pack.header.chunk_samples
        return self._buffer, self._slot_of[chunk_of] * size + rows % size

    def _loaded(self, chunks: list[int]) -> Iterator[tuple[int, Block]]:
        """Yield chunks, decoded, with as many threads as there are cores."""
        if len(chunks) == 1 and chunks[0] not in self._pending:
            yield chunks[0], self._read(chunks[0])
            return
        try:
            for number, chunk in enumerate(chunks):
                for other in chunks[number : number + cores()]:
                    self._start(other)
                yield chunk, self._pending.pop(chunk).result()
        finally:
            # After an error nothing is left to wait for, which a forked process would do in vain.
            for chunk in chunks:
                if chunk in self._pending:
                    self._pending.pop(chunk).cancel()

    def _keep(self, chunk: int, block: Any) -> None:
        if self._buffer is None:
            self._buffer = block.empty_like(self.window * self.pack.header.chunk_samples)
        if len(self._used) < self.window:
            slot = len(self._used)
        else:
            evicted, slot = self._used.popitem(last=False)
            self._slot_of[evicted] = -1
        self._buffer.write(slot * self.pack.header.chunk_samples, block)
        self._used[chunk] = slot
        self._slot_of[chunk] = slot

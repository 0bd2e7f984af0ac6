"""Chunks of a pack held in memory, within a bound, in one array from which batches are gathered."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import Block, ConfigError, Pack

__all__ = ["DEFAULT_CACHE_BYTES", "ChunkCache"]

DEFAULT_CACHE_BYTES = 2**30


class ChunkCache:
    """The most recently used chunks of a pack, side by side, so that a batch is one gather.

    Parameters
    ----------
    pack : Pack
    cache_bytes : int
        Bound on the memory held; at least one chunk is held whatever the bound.

    Attributes
    ----------
    slots : int
        How many chunks fit.
    """

    def __init__(self, pack: Pack, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        if cache_bytes < 1:
            raise ConfigError(f"cache_bytes must be positive, not {cache_bytes}")
        header = pack.header
        self.pack = pack
        self.cache_bytes = cache_bytes
        self.chunk_bytes = header.chunk_samples * header.memory_bytes
        self.slots = max(1, min(header.chunks, cache_bytes // self.chunk_bytes))
        self._clear()

    def _clear(self) -> None:
        self._buffer: Any = None
        self._used: OrderedDict[int, int] = OrderedDict()
        self._slot_of = np.full(self.pack.header.chunks, -1, np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {"pack": self.pack, "cache_bytes": self.cache_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["pack"], state["cache_bytes"])  # type: ignore[misc]

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
        if len(needed) <= self.slots:
            return self._hold(rows, chunk_of, needed)
        parts = []
        for start in range(0, len(needed), self.slots):
            some = needed[start : start + self.slots]
            inside = np.nonzero(np.isin(chunk_of, some))[0]
            block, where = self._hold(rows[inside], chunk_of[inside], some)
            parts.append((inside, block.take(where)))
        order = np.argsort(np.concatenate([inside for inside, _ in parts]))
        whole: Any = parts[0][1].empty_like(len(rows))
        start = 0
        for _, block in parts:
            whole.write(start, block)
            start += len(block)
        return whole, order

    def _hold(
        self, rows: NDArray[np.int64], chunk_of: NDArray[np.int64], needed: NDArray[np.int64]
    ) -> tuple[Block, NDArray[np.int64]]:
        wanted = needed.tolist()
        for chunk in wanted:
            if chunk in self._used:
                self._used.move_to_end(chunk)
        for chunk in wanted:
            if chunk not in self._used:
                self._load(chunk)
        assert self._buffer is not None
        size = self.pack.header.chunk_samples
        return self._buffer, self._slot_of[chunk_of] * size + rows % size

    def _load(self, chunk: int) -> None:
        block = self.pack.read_chunk(chunk)
        if self._buffer is None:
            self._buffer = block.empty_like(self.slots * self.pack.header.chunk_samples)
        if len(self._used) < self.slots:
            slot = len(self._used)
        else:
            evicted, slot = self._used.popitem(last=False)
            self._slot_of[evicted] = -1
        self._buffer.write(slot * self.pack.header.chunk_samples, block)
        self._used[chunk] = slot
        self._slot_of[chunk] = slot

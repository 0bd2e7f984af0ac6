"""`PackLoader`: training batches straight from a pack, or from several."""

from __future__ import annotations

import operator
import os
import threading
import zlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune_formats import ConfigError, Pack

from ..decode.augmentation import augment_name, draw
from ..decode.backends import make_decoder
from ..decode.plan import Decoder, Normalize, Resolution, check_batch, make_plan
from .cache import DEFAULT_CACHE_BYTES, ChunkCache
from .mixed import MixedCache, MixedDecoder
from .mixture import Mixture, open_packs
from .order import first_needs
from .prefetch import Ahead

__all__ = ["PackLoader"]


class PackLoader:
    """Iterate over a pack in decoded batches ``(images [n, C, h, w], labels int64 [n])``.

    Each iteration is one epoch: the one that `set_epoch` named, or the one after the last. The order
    and the augmentation of an epoch depend only on `seed`, the epoch and the arguments below, so that a
    run resumed by `load_state_dict` sees the batches that it would have seen.

    Parameters
    ----------
    path : path or Pack, a sequence of them, or Mixture
        The pack; or several, whose images are mixed, with one mean and standard deviation for all. They may
        differ in codec, components and chunks; see `edgeprune_runtime.Mixture`.
    batch_size : int
        Images in a batch; the last batch holds the rest unless `drop_last`.
    shuffle : bool
        Visit the samples in a new random order each epoch: uniform if the pack fits `cache_bytes`,
        otherwise within windows of half as many random chunks as fit; the other half is for the next window.
        Each window has chunks of all packs.
    seed : int
        Non-negative; fixes order and augmentation.
    backend : str
        ``"torch"`` gives tensors, ``"scipy"`` and ``"native"`` numpy arrays without torch; ``"auto"`` is
        torch where it is installed. Native is the compiled kernel, which torch uses as well on the CPU, where
        it is there. They agree to 1e-5.
    device : str or torch.device
        Where batches are decoded; ``"auto"`` is CUDA where there is one.
    dtype : str or dtype
        Of the images: ``"float32"``, ``"float16"``, ``"float64"``, and ``"bfloat16"`` with torch. Decoding is
        in float32.
    drop_last : bool
        Leave out a last batch that is not full.
    augment : bool or str
        ``"crop"`` (random crop after padding an eighth of the side by reflection), ``"flip"`` (random
        horizontal flip), ``"crop+flip"`` or True for both.
    normalize : bool or (mean, std)
        Subtract the pack's mean and divide by its standard deviation, per channel; or those given, such as
        the training pack's for a test pack. Those of several packs are of all their images. Without it
        images are on the scale of [0, 1]; pruning can overshoot either end a little, and nothing is clipped.
    resolution : int, (int, int) or None
        Decode at this height and width, e.g. half or a quarter, from the low frequencies alone.
    cache_bytes : int
        Bound on the memory for coefficients. If all of them fit decoded, they are kept; if not, but all
        take at most half of it as they are stored, they are kept so; otherwise they are read anew. What
        decoding a chunk needs for a moment comes on top, and the batches themselves.
    prefetch : int
        Batches that a thread decodes before they are asked for, while others decode the chunks that come
        next; 0 decodes each batch when it is asked for. The batches are the same.

    Attributes
    ----------
    pack : Pack or Mixture
        The open pack or packs: ``pack.header.class_names``, ``pack.labels``, ...

    Raises
    ------
    ConfigError
        An argument out of range, or a batch that would take more than 2 GiB.
    OSError, PackFormatError
        As `edgeprune_formats.open_pack`; damaged chunks are reported when they are read.
    """

    def __init__(
        self,
        path: str | Path | Pack | Mixture | Sequence[str | Path | Pack],
        batch_size: int = 128,
        shuffle: bool = False,
        seed: int = 0,
        *,
        backend: str = "auto",
        device: Any = "auto",
        dtype: Any = "float32",
        drop_last: bool = False,
        augment: bool | str = False,
        normalize: Normalize = False,
        resolution: Resolution = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        prefetch: int = 2,
    ) -> None:
        batch_size, seed, prefetch = map(operator.index, (batch_size, seed, prefetch))
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
        if seed < 0:
            raise ConfigError(f"seed must not be negative: {seed}")
        if prefetch < 0:
            raise ConfigError(f"prefetch must not be negative: {prefetch}")
        self.pack = _opened(path)
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.drop_last, self.augment, self.prefetch = drop_last, augment_name(augment), prefetch
        header = self.pack.header
        if normalize is True:
            normalize = header.mean, header.std
        packs = self.pack.packs if isinstance(self.pack, Mixture) else (self.pack,)
        decoders: list[Decoder] = []
        for pack in packs:
            plan = make_plan(pack.header, normalize=normalize, resolution=resolution)
            check_batch(plan, min(batch_size, len(self.pack)))
            decoders.append(make_decoder(backend, plan, device=device, dtype=dtype))
        self._decoder: Any = decoders[0]
        self._cache: Any
        if isinstance(self.pack, Mixture):
            self._decoder = MixedDecoder(decoders)
            self._cache = MixedCache(self.pack, cache_bytes, ahead=True)
        else:
            self._cache = ChunkCache(self.pack, cache_bytes, ahead=True)
        self._window = self._cache.window
        self._own_process()
        self._epoch = self._batch = 0
        self._continue, self._loaded = True, False

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._own_process()

    def _own_process(self) -> None:
        # Iterators share cache and decoder.
        self._process, self._lock = os.getpid(), threading.Lock()

    def _check_process(self) -> None:
        if self._process != os.getpid():
            # A fork copies the lock held, but not the thread that holds it.
            self._own_process()

    def __len__(self) -> int:
        full, rest = divmod(len(self.pack), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration epoch number `epoch`, from its first batch.

        Right after `load_state_dict` the epoch of that state keeps its position, so that a loop over epochs
        that begins with this call resumes as it should.

        Raises
        ------
        ConfigError
            `epoch` is negative.
        """
        if epoch < 0:
            raise ConfigError(f"epoch must not be negative: {epoch}")
        if not (self._loaded and epoch == self._epoch):
            self._epoch, self._batch = epoch, 0
        self._continue = True

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        if not self._continue:
            self._epoch, self._batch = self._epoch + 1, 0
        self._continue = self._loaded = False
        return self._batches(self._epoch, self._batch)

    def _batches(self, epoch: int, first: int) -> Iterator[tuple[Any, Any]]:
        source = self._source(epoch, first)
        try:
            for batch in range(first, len(self)):
                if isinstance(source, Ahead) and source.orphaned:
                    source = self._source(epoch, batch)
                images, labels = next(source)
                self._decoder.receive(images, labels)
                self._epoch, self._batch = epoch, batch + 1
                yield images, labels
        finally:
            source.close()

    def _source(
        self, epoch: int, first: int
    ) -> Ahead[tuple[Any, Any]] | Generator[tuple[Any, Any], None, None]:
        self._check_process()
        batches = self._decoded(epoch, first)
        return Ahead(batches, self.prefetch) if self.prefetch else batches

    def _decoded(self, epoch: int, first: int) -> Generator[tuple[Any, Any], None, None]:
        plan = self._decoder.plan
        order = self._cache.order(self._window, seed=self.seed, epoch=epoch, shuffle=self.shuffle)
        chunks, needed_at = first_needs(self._cache.chunk_of(order))
        for batch in range(first, len(self)):
            start, stop = batch * self.batch_size, (batch + 1) * self.batch_size
            rows = order[start:stop]
            crops = draw(
                self.augment,
                seed=self.seed,
                epoch=epoch,
                batch=batch,
                count=len(rows),
                height=plan.height,
                width=plan.width,
            )
            with self._lock:
                coefficients, where = self._cache.find(rows)
                if self.prefetch:
                    self._cache.prepare(chunks[np.searchsorted(needed_at, stop) :])
                images = self._decoder.images(coefficients, where, crops)
            yield images, self._decoder.labels(self.pack.labels[rows])

    def _identity(self) -> dict[str, Any]:
        plan = self._decoder.plan
        content = zlib.crc32(self.pack.source_index.tobytes(), zlib.crc32(self.pack.labels.tobytes()))
        return {
            "samples": len(self.pack),
            "chunk_samples": _chunk_samples(self.pack),
            "content": content,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "drop_last": self.drop_last,
            "augment": self.augment,
            "resolution": [plan.height, plan.width],
            "scale": plan.scale.tolist(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return, ready for JSON, the position after the last batch that was handed out."""
        return {**self._identity(), "window": self._window, "epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration go on after the batch at which `state_dict` was called.

        Raises
        ------
        ConfigError
            The state is of a loader with other arguments or another pack, or of one whose shuffling
            window does not fit `cache_bytes`, or is no state at all.
        """
        for name, ours in self._identity().items():
            if state.get(name) != ours:
                raise ConfigError(f"cannot resume: {name} was {state.get(name)} and is now {ours}")
        whole = {name: isinstance(state.get(name), int) and state[name] >= 0 for name in ("epoch", "batch")}
        for name, sound in {**whole, "window": self._cache.is_window(state.get("window"))}.items():
            if not sound:
                raise ConfigError(f"cannot resume: {name} is {state.get(name)}")
        if self.shuffle and not self._cache.fits(state["window"]):
            need = self._cache.bytes_for(state["window"])
            raise ConfigError(f"cannot resume: the order needs cache_bytes={need} or more")
        self._check_process()
        if self.shuffle and state["window"] != self._window:
            with self._lock:
                self._cache.reserve(state["window"])
        self._window, self._epoch, self._batch = state["window"], state["epoch"], state["batch"]
        self._continue = self._loaded = True


def _opened(path: str | Path | Pack | Mixture | Sequence[str | Path | Pack]) -> Pack | Mixture:
    if isinstance(path, Pack | Mixture):
        return path
    return open_packs([path] if isinstance(path, str | os.PathLike) else path)


def _chunk_samples(pack: Pack | Mixture) -> int | list[int]:
    if isinstance(pack, Mixture):
        return [one.header.chunk_samples for one in pack.packs]
    return pack.header.chunk_samples

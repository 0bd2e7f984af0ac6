"""`PackLoader`: training batches straight from a pack, or from several."""

from __future__ import annotations

import operator
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import one_line

from ..checks import whole_number
from ..decode.augmentation import LoaderAugment, loader_augment
from ..decode.backends import Backend
from ..decode.dtypes import dtype_name
from ..decode.plan import Normalize, Resolution
from ..normalization import Normalization
from .arguments import (
    check_choices,
    check_classes,
    check_numbers,
    check_schedule,
    check_transform,
    statistics,
    warn_of_no_batch,
)
from .chunks.buffers import Ring
from .chunks.cache import DEFAULT_CACHE_BYTES
from .chunks.prefetch import Prefetcher
from .chunks.reader import Packs, make_reader, open_given
from .epoch import Batch, BatchMaker
from .order.ranks import rank_share
from .order.replay import Replay, replay_order
from .order.resolutions import ResolutionSchedule
from .order.sampling import Sampling
from .order.skipping import OnCorrupt, SkippedChunk
from .state import identity, next_place, place_in, require_same, skipped_in
from .targets import DEFAULT_TARGETS, TargetReader
from .transforms import BatchTransform, apply, make_recipe

if TYPE_CHECKING:
    from ..decode.dtypes import Device, Dtype

__all__ = ["PackLoader"]


class PackLoader:
    """Iterate over a pack in decoded batches ``(images [n, C, h, w], labels int64 [n])``, or other targets.

    Each iteration is one epoch: the one that `set_epoch` named, or the one after the last. The order
    and the augmentation of an epoch depend only on `seed`, the epoch and the arguments below, so that a
    run resumed by `load_state_dict` sees the batches that it would have seen.

    Parameters
    ----------
    path : path or Pack, a sequence of them, or Mixture
        The pack; or several, whose images are mixed, with one mean and standard deviation for all. They may
        differ in codec, components and chunks; see `edgeprune_runtime.Mixture`. The URL of a far one is a
        str; it is fetched to the cache first, see `edgeprune_formats.open_pack`.
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
        it is there. They agree to 1e-5. A process that decodes by torch without the compiled kernel, or on a
        CUDA device, must not be forked to decode in the child as well: torch does not support it and may
        hang. Start processes by "spawn" or "forkserver" there.
    device : str or torch.device
        Where batches are decoded; ``"auto"`` is CUDA where there is one.
    dtype : str or dtype
        Of the images: ``"float32"``, ``"float16"``, ``"float64"``, and ``"bfloat16"`` with torch. Decoding is
        in float32.
    drop_last : bool
        Leave out a last batch that is not full; nothing remains of fewer images than a batch, with a warning.
    augment : bool or str
        ``"crop"`` (random crop after padding an eighth of the side by reflection), ``"flip"`` (random
        horizontal flip), ``"crop+flip"`` or True for both. ``"short"`` crops after padding a sixteenth, and
        mirrors each image in every second epoch: for runs of few epochs. ``"light"`` and ``"strong"`` are
        lists of operations with random numbers for each image, see `edgeprune_runtime.decode.recipes`, and
        need backend ``"torch"``. ``"strong"`` mixes images: labels are probabilities, float32 [n, classes].
    normalize : bool or (mean, std)
        Subtract the pack's mean and divide by its standard deviation, per channel; or those given, such as
        the training pack's for a test pack. Those of several packs are of all their images. Without it
        images are on the scale of [0, 1]; pruning can overshoot either end a little, and nothing is clipped.
    resolution : int, (int, int) or None
        Decode at this height and width, e.g. half or a quarter, from the low frequencies alone.
    resolution_schedule : str, optional
        Decode the first epochs at lower resolutions, for progressive resizing: ``"32:6,48:3"`` has epochs 0
        to 5 at 32x32 pixels, 6 to 8 at 48x48, and all that follow at `resolution`. Sizes rise;
        ``"24x32:6"`` is for images that are not square. The order is that without it, crops are in
        proportion, and flips the same from 8 pixels on. The cache is one for all.
    cache_bytes : int
        Bound on the memory for coefficients. If all of them fit decoded, they are kept; if not, but all
        take at most half of it as they are stored, they are kept so; otherwise they are read anew. What
        decoding a chunk needs for a moment comes on top, and the batches themselves.
    prefetch : int
        Batches that a thread decodes before they are asked for, while others decode the chunks that come
        next; 0 decodes each batch when it is asked for. The batches are the same. Backend ``"scipy"``
        prefetches chunks alone: the process may fork while it is in use, see `Decoder.in_background`.
    sampling : str
        ``"uniform"`` shows each image once in an epoch. ``"balanced"`` shows each class equally often, in an
        epoch of as many images: images of small classes repeat, and of large ones others are there each time.
        That holds within each window of `shuffle`, which it needs, for the classes that the window has.
    on_corrupt : str
        ``"fail"`` raises the error of a chunk that is damaged or cannot be read. ``"skip"`` tries it again,
        and then leaves it out of this epoch and all others. Batches keep number and size: the images that
        follow move up, and the last batches take the epoch's first images again.
    replay : Replay or float, optional
        Of several packs the last ones are new, the others old, and each batch has this share of old images,
        see `Replay`. An epoch then is each new image once, and as many old ones as fill the share: over
        epochs each old image comes equally often. Not with a `world_size` above 1.
    reuse_buffers : bool or int
        Write batches into the same few buffers again and again: for small images fresh memory takes longer
        than decoding. With a number k the images of a batch are valid until the k-th batch after it is asked
        for; True is 1. Copy what you keep. Decoded on the CPU by torch in a process that uses CUDA, they are
        in pinned memory, and copies to the device with `non_blocking` are waited for, if they were started
        in the current stream of the thread that iterates. On a CUDA device torch reuses memory by itself,
        and a batch stays as it is. The values are the same.
    transform : callable, optional
        From the images and targets of a batch, as arguments, to as many in a tuple, such as those of
        torchvision.transforms.v2, which draw once for all images of a batch. Called in the thread that
        iterates, after `augment`. What it draws from the global generators of Python, numpy and torch
        depends on `seed`, epoch and batch alone.
    rank, world_size : int, optional
        Share the images of each epoch out to so many processes, of which this is number `rank`, from 0. All
        other arguments must be the same in each. Every process takes every `world_size`-th image: the batches
        of one step are together a batch of a single process with `batch_size` times `world_size`. Where the
        images cannot be divided, the epoch's first ones are taken again, so that all take as many steps, or
        with `drop_last` the last ones are left out. A state of any process resumes all of them, but with
        ``on_corrupt="skip"`` each is resumed by its own: they find damaged chunks at different batches.
    targets : sequence of str
        The columns that batches have after the images, by name, such as ``("label", "weight")``; see
        `edgeprune_formats.targets.Target` for their shapes and types. Text is a list of str. Several packs
        must have them of the same kinds, with the same classes but for those of the label, which are united.

    Attributes
    ----------
    pack : Pack or Mixture
        The open pack or packs: ``pack.header.class_names``, ``pack.labels``, ...
    targets : tuple of Column
        What batches have after the images.
    resolution_schedule : ResolutionSchedule
        With no stage where there is none.
    skipped : tuple of SkippedChunk
        The chunks that were left out up to the last batch handed out; `state_dict` holds them.

    Raises
    ------
    ConfigError
        An argument out of range, or a batch that takes more than 4 GiB to decode, see `check_batch`.
    OSError, PackFormatError, RemoteError
        As `edgeprune_formats.open_pack`; damaged chunks are reported when they are read.
    """

    def __init__(
        self,
        path: Packs,
        batch_size: int = 128,
        shuffle: bool = False,
        seed: int = 0,
        *,
        backend: Backend = "auto",
        device: Device = "auto",
        dtype: Dtype = "float32",
        drop_last: bool = False,
        augment: bool | LoaderAugment = False,
        normalize: Normalize = False,
        resolution: Resolution = None,
        resolution_schedule: str | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        prefetch: int = 2,
        sampling: Sampling = "uniform",
        on_corrupt: OnCorrupt = "fail",
        replay: Replay | float | None = None,
        targets: Sequence[str] = DEFAULT_TARGETS,
        reuse_buffers: bool | int = False,
        transform: BatchTransform | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        batch_size, seed = whole_number("batch_size", batch_size), whole_number("seed", seed)
        prefetch, buffers = whole_number("prefetch", prefetch), whole_number("reuse_buffers", reuse_buffers)
        check_numbers(batch_size=batch_size, seed=seed, prefetch=prefetch, reuse_buffers=buffers)
        ranks = rank_share(rank, world_size, drop_rest=bool(drop_last))
        check_choices(on_corrupt, sampling, ranks, shuffle=shuffle, replays=replay is not None)
        check_transform(transform)
        augment, shuffle = loader_augment(augment), bool(shuffle)
        self.pack = open_given(path)
        check_classes(self.pack, sampling)
        columns = TargetReader(self.pack, targets)
        self._make_reader = partial(
            make_reader,
            self.pack,
            batch_size=batch_size,
            backend=backend,
            device=device,
            dtype=dtype,
            normalize=normalize,
            cache_bytes=cache_bytes,
            prefetch=True,
        )
        self._reader = self._make_reader(resolution=resolution)
        self.resolution_schedule = ResolutionSchedule.parse(resolution_schedule)
        plan = self._reader.decoder.plan
        check_schedule(self.resolution_schedule, plan, self._make_reader)
        # Of the epochs after the schedule, and of `_reader`.
        self._resolution = self._size = resolution
        given = statistics(self.pack.header, normalize)
        self._values: dict[str, Any] = {
            "resolution": [plan.height, plan.width],
            "resolution_schedule": str(self.resolution_schedule) or None,
            "dtype": dtype_name(dtype),
            "normalize": given,
        }
        self._maker = BatchMaker(
            pack=self.pack,
            reader=self._reader,
            targets=columns,
            ranks=ranks,
            replay=replay_order(self.pack, replay, batch_size),
            recipe=make_recipe(
                augment,
                self._reader.decoder,
                self.pack.header.channels,
                given,
                columns.columns,
                seed,
            ),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            sampling=sampling,
            on_corrupt=on_corrupt,
            augment=augment,
            looks_ahead=prefetch > 0,
        )
        self.batch_size, self.shuffle, self.seed, self.sampling = batch_size, shuffle, seed, sampling
        self.drop_last, self.augment, self.on_corrupt = bool(drop_last), augment, on_corrupt
        self.prefetch, self.reuse_buffers, self.transform = prefetch, buffers, transform
        self.replay, self.targets = self._maker.replay, columns.columns
        self._ring: Ring | None = None
        self.skipped: tuple[SkippedChunk, ...] = ()
        self._epoch = self._batch = 0
        self._continue, self._loaded = True, False
        if not len(self):
            warn_of_no_batch(len(self.pack), batch_size, ranks)

    def __len__(self) -> int:
        return len(self._maker)

    @property
    def normalization(self) -> Normalization:
        """What batches are normalized by: 0 and 1 where they are not."""
        channels = self.pack.header.channels
        mean, std = self._values["normalize"] or ([0.0] * channels, [1.0] * channels)
        return Normalization(tuple(mean), tuple(std))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images; at full size with a `resolution_schedule`."""
        height, width = self._values["resolution"]
        return self.pack.header.channels, height, width

    @property
    def gives_tensors(self) -> bool:
        """Whether batches are tensors of torch, and not arrays of numpy."""
        return not isinstance(self._reader.decoder.labels(np.zeros(1, np.int64)), np.ndarray)

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration epoch number `epoch`, from its first batch.

        Right after `load_state_dict` the epoch of that state keeps its position, so that a loop over epochs
        that begins with this call resumes as it should.

        Raises
        ------
        ConfigError
            `epoch` is negative, or no whole number.
        """
        try:
            number = operator.index(epoch)
        except TypeError:
            number = -1
        if number < 0 or isinstance(epoch, bool):
            raise ConfigError(f"`epoch` is {one_line(repr(epoch))}; give a whole number from 0 on")
        epoch = number
        if not (self._loaded and epoch == self._epoch):
            self._epoch, self._batch = epoch, 0
        self._continue = True

    def __getitem__(self, index: object) -> NoReturn:
        """Refuse: torch's DataLoader would take the number of a batch for that of an image."""
        raise TypeError(
            "a PackLoader makes batches by itself: iterate over it, or give DataLoader a PackDataset instead"
        )

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        self._maker.ranks.warn_if_alone()
        return self._batches()

    def _batches(self) -> Iterator[tuple[Any, ...]]:
        # Not before a batch is asked for: frameworks make iterators that they never use.
        if not self._continue:
            self._epoch, self._batch = self._epoch + 1, 0
        self._continue = self._loaded = False
        epoch, first = self._epoch, self._batch
        maker = self._enter(epoch)
        ring = self._borrow_ring(maker)
        source = self._source(maker, epoch, first, ring)
        try:
            for batch in range(first, len(self)):
                if isinstance(source, Prefetcher) and source.orphaned:
                    ring = self._borrow_ring(maker)
                    source = self._source(maker, epoch, batch, ring)
                if ring is not None:
                    ring.ask()
                images, targets, skipped = next(source)
                maker.targets.receive(maker.reader.decoder, images, targets)
                made = images, *targets
                if self.transform is not None:
                    number = maker.ranks.batch_number(batch)
                    made = apply(self.transform, made, maker.seed, epoch, number, 4)
                self._epoch, self._batch, self.skipped = epoch, batch + 1, skipped
                yield made
            # Not where an epoch ends before: a thread may still be writing.
            if maker is self._maker:
                self._ring = ring
        finally:
            source.close()

    def _enter(self, epoch: int) -> BatchMaker:
        """Return what makes an epoch's batches; with another resolution working memory begins anew."""
        size = self.resolution_schedule.size(epoch) or self._resolution
        if size != self._size:
            self._reader = self._make_reader(resolution=size).sharing(self._reader)
            self._maker = replace(self._maker, reader=self._reader)
            self._size, self._ring = size, None
        return self._maker

    def _borrow_ring(self, maker: BatchMaker) -> Ring | None:
        """Return buffers that no other iteration writes to: those of the last epoch, or new ones."""
        if not self.reuse_buffers:
            return None
        ring = None
        if maker is self._maker:
            ring, self._ring = self._ring, None
        decoder = maker.reader.decoder
        return ring or Ring(decoder.room, self.reuse_buffers, self.prefetch if decoder.in_background else 0)

    def _source(
        self, maker: BatchMaker, epoch: int, first: int, ring: Ring | None
    ) -> Prefetcher[Batch] | Generator[Batch, None, None]:
        batches = maker.decoded(epoch, first, self.skipped, ring)
        if self.prefetch and maker.reader.decoder.in_background:
            return Prefetcher(batches, self.prefetch)
        return batches

    def state_dict(self) -> dict[str, Any]:
        """Return, ready for JSON, the position after the last batch that was handed out.

        After an epoch's last batch that is the start of the next epoch, as with PyTorch's StatefulDataLoader.
        ``"epoch"`` counts from 0.
        """
        epoch, batch = next_place(self._epoch, self._batch, len(self))
        return {
            **identity(self._maker, self.transform, self._values),
            "window": self._reader.cache.window,
            "skipped": [one.chunk for one in self.skipped],
            "epoch": epoch,
            "batch": batch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration go on after the batch at which `state_dict` was called.

        Raises
        ------
        ConfigError
            The state is of a loader with other arguments or another pack, or of one whose shuffling
            window does not fit `cache_bytes`, or is no state at all.
        """
        require_same(state, identity(self._maker, self.transform, self._values))
        epoch, batch = place_in(state, len(self))
        skipped = skipped_in(state, self._maker)
        if self._maker.shuffle:
            self._reader.resume(state.get("window"))
        self.skipped, self._epoch, self._batch = skipped, epoch, batch
        self._continue = self._loaded = True

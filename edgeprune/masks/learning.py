"""Learning an FSE-Net on the images of a source, and applying it (paper, Algorithm 1)."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_runtime.errors import ArtifactError
from edgeprune_runtime.networks.trained import TrainedNetwork
from edgeprune_runtime.system.machine import versions
from edgeprune_runtime.training.placement import Placement, place
from edgeprune_runtime.training.settings import TrainConfig

from ..presets import MaskPreset, data_family, mask_preset
from ..sources import Source, SourceCheck, source_facts
from ..work.callbacks import EpochProgress
from ..work.image_cache import remove_images
from ..work.image_store import ImageStore, cached_if_large
from ..work.processes import Workers
from ..work.resumable import ResumableRun, remove_work_folder
from ..work.temporary import work_folder
from .classifier import require_fit
from .config import MaskConfig
from .fse_file import load_fse_net, save_fse_net
from .fse_net import FSENet, select
from .learner import COUNTS, MaskLearner, read_figures

__all__ = ["learn_masks", "learned_selector", "load_masks", "preset_for"]

# Values of spectra that a selection on the device works on at a time.
_SELECT_VALUES = 4 * 2**20
# Pixels of images whose activations in the classifier are in memory at a time, for the gradient.
_STEP_VALUES = 8 * 2**20


def preset_for(source: Source, freq_prune: float, config: MaskConfig) -> MaskPreset:
    """Return k_total, k and lambda: the configured ones, or the paper's.

    Raises
    ------
    ConfigError
        k is larger than k_total.
    """
    _, height, width = source.shape
    family = data_family(len(source.class_names), height, width)
    preset = mask_preset(freq_prune, height, width, family)
    k = preset.k if config.k is None else config.k
    if k > preset.k_total:
        raise ConfigError(
            f"`MaskConfig.k` is {k}, more than the {preset.k_total} components that a frequency pruning "
            f"ratio of {freq_prune} keeps in each channel of {height}x{width}"
        )
    weight = config.accuracy_weight
    return MaskPreset(preset.k_total, k, preset.accuracy_weight if weight is None else weight)


def learn_masks(
    source: Source,
    check: SourceCheck,
    classifier: TrainedNetwork,
    path: Path,
    config: MaskConfig,
    *,
    freq_prune: float,
    seed: int = 0,
    jobs: int | None = None,
    workers: Workers | None = None,
    report: EpochProgress | None = None,
) -> tuple[FSENet, dict[str, Any]]:
    """Learn an FSE-Net on all readable images of a source and save it; go on where an earlier call stopped.

    A file that was learned with the same settings from the same images is used as it is.

    Parameters
    ----------
    source, check : Source, SourceCheck
        The images, not augmented.
    classifier : TrainedNetwork
        Stays as it is.
    path : Path
        Where the FSE-Net is saved; until then checkpoints are in `edgeprune.work.temporary.work_folder`, and
        images that do not fit in memory in `edgeprune.work.temporary.images_folder`.
    config : MaskConfig
    freq_prune : float
        Share of the components that is dropped.
    seed : int
        Fixes the first weights and the order of the images.
    jobs : int, optional
        Threads that read images, see `edgeprune.work.image_store.ImageStore`.
    workers, report
        See `edgeprune.work.resumable.ResumableRun`.

    Returns
    -------
    FSENet
        On the CPU.
    dict
        What it depends on, with ``k``, ``k_total``, ``accuracy_weight`` and ``history`` (for each epoch the
        mean ``entropy`` in nats, ``accuracy`` of the classifier on the pruned images, ``overlap`` with the
        energy mask, ``loss``, ``probability``, all as each batch was before its step).

    Raises
    ------
    ConfigError, ArtifactError
        k is out of range, or batches are too small to share; the classifier is not for these images; the
        file was learned with other settings, or is damaged.
    TrainingError, TrainingInterrupted, SourceError
        See `edgeprune.work.resumable.ResumableRun.finish`.
    """
    workers = workers or Workers()
    require_fit(classifier, source)
    preset = preset_for(source, freq_prune, config)
    placement = place(TrainConfig(device=workers.device, precision=config.precision))
    settings = {**asdict(config), "seed": seed}
    record = _record(source, check, classifier, settings, freq_prune, preset)
    if path.exists():
        found = _reuse(path, record)
        if workers.rank == 0:
            remove_work_folder(work_folder(path))
            remove_images(path)
        return found
    rows = check.good.astype(np.int64)
    _require_shares(source, len(rows), config, workers)
    cuda = [placement.device.index] if placement.device.type == "cuda" else []
    with (
        cached_if_large(source, path, placement.device, workers=workers) as images,
        torch.random.fork_rng(cuda),
    ):
        store = ImageStore(images, rows, placement.device, jobs=jobs)
        torch.manual_seed(seed)
        task = _MaskLearning(store, classifier, config, seed, preset, placement, workers)
        history = ResumableRun(task, work_folder(path), record, workers, report).finish()
    if workers.rank == 0:
        # Without the time it took, equal runs give equal files.
        figures = [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in history]
        ran_on = {"device": str(placement.device), "precision": placement.precision}
        save_fse_net(path, task.net, {**record, "ran_on": ran_on, "history": figures})
        shutil.rmtree(work_folder(path), ignore_errors=True)
    workers.wait()
    return load_fse_net(path)


def load_masks(path: Path, source: Source, freq_prune: float | None) -> tuple[FSENet, dict[str, Any]]:
    """Read an FSE-Net that was learned before, for the images of a source.

    Parameters
    ----------
    path : Path
        The file.
    source : Source
        Of images of the size that it was learned on.
    freq_prune : float or None
        The ratio asked for, which must be its own; None takes what it was learned for.

    Raises
    ------
    ArtifactError
        It is damaged, or for another image size.
    ConfigError
        It was learned for another ratio.
    """
    net, record = load_fse_net(path)
    if (net.height, net.width) != source.shape[1:]:
        height, width = source.shape[1:]
        raise ArtifactError(
            f"{path}: an FSE-Net for images of {net.height}x{net.width}, and those of {source.spec} are "
            f"{height}x{width}; resize (`size`), or learn another"
        )
    k, k_total, learned_for = (record.get(name) for name in ("k", "k_total", "freq_prune"))
    if not (isinstance(k, int) and isinstance(k_total, int) and isinstance(learned_for, float | int)):
        raise ArtifactError(f"{path}: does not say how many components it keeps; learn it again")
    if not 0 <= k <= k_total <= net.height * net.width or k_total < 1 or not 0 <= learned_for < 1:
        raise ArtifactError(
            f"{path}: keeps {k_total} components, {k} of them by energy, at a ratio of {learned_for}, which "
            "cannot be; learn it again"
        )
    if freq_prune is not None and freq_prune != learned_for:
        raise ConfigError(
            f"{path} was learned for a frequency pruning ratio of {learned_for}, not {freq_prune}; "
            "leave `freq_prune` out, or learn another"
        )
    return net, record


def learned_selector(
    net: FSENet, k: int, k_total: int, device: str
) -> Callable[[NDArray[np.float32]], NDArray[np.bool_]]:
    """Return the selector that keeps what an FSE-Net chooses (eq. 8).

    Parameters
    ----------
    net : FSENet
    k, k_total : int
        See `edgeprune.masks.components.select_components`.
    device : str
        Where the network runs: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    """
    where = place(TrainConfig(device=device)).device
    net = net.to(where).eval()

    def selected(spectra: NDArray[np.float32]) -> NDArray[np.bool_]:
        at_once = max(1, _SELECT_VALUES // math.prod(spectra.shape[1:]))
        parts = [
            select(net, torch.from_numpy(spectra[start : start + at_once]).to(where), k, k_total)[0]
            for start in range(0, len(spectra), at_once)
        ]
        return torch.cat(parts).cpu().numpy()

    return selected


def _record(
    source: Source,
    check: SourceCheck,
    classifier: TrainedNetwork,
    settings: dict[str, Any],
    freq_prune: float,
    preset: MaskPreset,
) -> dict[str, Any]:
    """Return what the FSE-Net depends on, ready for JSON."""
    record = {
        "config": settings,
        "freq_prune": freq_prune,
        **asdict(preset),
        "source": source_facts(source, check),
        "classifier": classifier.identity(),
        "versions": versions(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(record))
    return plain


def _reuse(path: Path, record: Mapping[str, Any]) -> tuple[FSENet, dict[str, Any]]:
    try:
        net, found = load_fse_net(path)
    except ArtifactError as error:
        raise ArtifactError(
            f"{path} exists, and cannot be used as an FSE-Net; remove it, or write the pack elsewhere"
        ) from error
    old, new = _settings(found), _settings(record)
    for name, value in new.items():
        if old.get(name) != value:
            raise ConfigError(
                f"{path} exists and was learned with {name} {old.get(name)}, not {value}; "
                "write the pack elsewhere, or remove the file"
            )
    return net, found


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be equal for a network to be used in place of one that would be learned."""
    settings = {name: record.get(name) for name in ("freq_prune", "k", "k_total", "accuracy_weight")}
    # Whatever the files are called, it is the pixels and the weights that count.
    hashes = {f"{name} (SHA-256)": record.get(name, {}).get("sha256") for name in ("source", "classifier")}
    # k and accuracy_weight of the configuration may be None, for what is in the settings.
    return {**record.get("config", {}), **settings, **hashes}


def _require_shares(source: Source, images: int, config: MaskConfig, workers: Workers) -> None:
    batches = -(-images // config.batch_size)
    if images // batches < workers.count:
        raise ConfigError(
            f"{source.spec}: batches of {images // batches} images are too small for {workers.count} "
            "processes; raise the batch size of the masks, or start fewer"
        )


class _MaskLearning:
    """The task: epochs of Algorithm 1 over all images."""

    name = "learning masks"

    def __init__(
        self,
        store: ImageStore,
        classifier: TrainedNetwork,
        config: MaskConfig,
        seed: int,
        preset: MaskPreset,
        placement: Placement,
        workers: Workers,
    ) -> None:
        self.epochs, self.images = config.epochs, len(store)
        self.steps = -(-len(store) // config.batch_size)
        self._store, self._seed, self._workers, self._placement = store, seed, workers, placement
        device = placement.device
        self.net = FSENet(*store.shape[1:]).to(device)
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
            for values in (classifier.mean, classifier.std)
        )
        self._learner = MaskLearner(
            self.net,
            classifier.model.to(device).to(memory_format=torch.channels_last),
            k=preset.k,
            k_total=preset.k_total,
            accuracy_weight=preset.accuracy_weight,
            lr=config.lr,
            mean=mean,
            std=std,
            precision_context=placement.autocast,
        )
        self._learner.forward_net = workers.wrap(self.net)
        self._lr = config.lr
        self._pieces = self._pieces_of(math.prod(store.shape))
        self._sums: dict[str, torch.Tensor] = {}

    def run(self, epoch: int, first: int) -> Iterator[int]:
        """Take the steps of an epoch; see `edgeprune.work.resumable.Task`."""
        if first == 0:
            self._sums = {}
        order = np.random.default_rng([self._seed, epoch]).permutation(self.images)
        whole = np.array_split(order, self.steps)[first:]
        parts = [self._workers.part(rows) for rows in whole]
        batches = self._store.batches((rows, None) for rows in parts)
        for step, images in enumerate(batches):
            rows = torch.from_numpy(parts[step]).to(self._placement.device, non_blocking=True)
            share = self._workers.share(len(rows), len(whole[step]))
            self._cool(epoch * self.steps + first + step)
            labels = self._store.labels[rows]
            self._note(self._learner.step(images, labels, share=share, pieces=self._pieces))
            yield first + step

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Return the epoch's means; see `edgeprune.work.resumable.Task`."""
        sums = read_figures(self._totals())
        images = sums.pop("images")
        means = {name: value / images for name, value in sums.items()}
        means["accuracy"] = means.pop("correct")
        return means

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the state of learning and the sums of the epoch so far."""
        sums = {f"sum.{name}": value for name, value in self._totals().items()}
        return {**self._learner.tensors(), **sums}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what `tensors` returned."""
        self._learner.restore(tensors)
        kept = {name.removeprefix("sum."): t for name, t in tensors.items() if name.startswith("sum.")}
        # They are summed over processes when they are next needed, so one of them holds what there was.
        factor = float(self._workers.rank == 0)
        self._sums = {name: (value * factor).to(self._placement.device) for name, value in kept.items()}

    def _pieces_of(self, values: int) -> int:
        """Return in how many pieces all processes work on their parts of a batch, none of them empty."""
        largest = -(-self.images // (self.steps * self._workers.count))
        smallest = self.images // self.steps // self._workers.count
        return min(-(-largest * values // _STEP_VALUES), smallest)

    def _cool(self, number: int) -> None:
        """Set the learning rate of a step, counted over the whole run: half a cosine from the peak to 0."""
        share = number / (self.epochs * self.steps)
        for group in self._learner.optimizer.param_groups:
            group["lr"] = self._lr * 0.5 * (1 + math.cos(math.pi * share))

    def _note(self, figures: Mapping[str, torch.Tensor]) -> None:
        images = figures["images"].double()
        for name, figure in figures.items():
            # Counts are sums already, the others are means over the batch.
            value = figure.double() * (1 if name in COUNTS else images)
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def _totals(self) -> dict[str, torch.Tensor]:
        if not self._sums:
            return {}
        stacked = self._workers.total(torch.stack(list(self._sums.values())))
        return dict(zip(self._sums, stacked, strict=True))

"""From a row of a recipe to a trained network; whatever the folder holds is not done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeprune import BuildConfig, build_pack, open_source
from edgeprune.coresets.config import CoresetConfig
from edgeprune.coresets.selection import select_images
from edgeprune.masks.config import MaskConfig
from edgeprune.presets import component_count, data_family, mask_preset
from edgeprune.scoring.config import ScoreConfig
from edgeprune.scoring.scores_file import ScoresFile
from edgeprune.sources import Source, SourceCheck, check_source
from edgeprune.work.image_store import ImageStore, cached_if_large
from edgeprune_formats import ConfigError, open_pack
from edgeprune_runtime.output_files import write_text
from edgeprune_runtime.training import Normalization, TrainConfig, TrainLoader
from edgeprune_runtime.training.placement import place

from ..harness.cells import pack_loader, score_images, train_steps
from ..harness.deadline import Deadline
from ..harness.pixel_loader import PixelLoader
from .evaluation import classify, drawn_images
from .recipes import PGD, Row, Scale

__all__ = ["Experiment"]


@dataclass(frozen=True)
class Experiment:
    """Scores, packs and networks of one data set at one scale.

    Attributes
    ----------
    spec : str
        The images, as `edgeprune.open_source` takes them.
    size : int or None
        Side that images are resized to.
    scale : Scale
    device : str
        As `TrainConfig` takes it.
    folder : Path
        Where everything is kept.
    deadline : Deadline
    on_event : callable
        Is given the events of training and of scoring.
    """

    spec: str
    size: int | None
    scale: Scale
    device: str
    folder: Path
    deadline: Deadline
    on_event: Callable[[dict[str, Any]], None]

    @cached_property
    def source(self) -> Source:
        """The training images."""
        return open_source(self.spec, size=self.size, channels="rgb")

    @cached_property
    def check(self) -> SourceCheck:
        """Which of them can be read."""
        return check_source(self.source)

    @cached_property
    def test(self) -> Source:
        """The test images."""
        return open_source(self.spec, split="test", size=self.size, channels="rgb")

    @cached_property
    def scores_file(self) -> ScoresFile:
        """The one scoring run, from which all scores come and the classifier of the FSE-Nets."""
        return score_images(
            self.source, self.check, self.scores_path, self._scoring, self.deadline, self.on_event
        )

    @property
    def scores_path(self) -> Path:
        """The file of the scoring run."""
        return self.folder / "scores.h5"

    @property
    def _scoring(self) -> ScoreConfig:
        scale = self.scale
        return ScoreConfig(
            model=scale.model,
            epochs=scale.score_epochs,
            every=scale.every,
            batch_size=scale.batch_size,
            lr=scale.lr,
            weight_decay=scale.weight_decay,
            device=self.device,
        )

    def without_defaults(self, row: Row) -> Row:
        """Return a row that leaves out settings of what would be taken anyway: one network has one folder."""
        _, height, width = self.source.shape
        preset = mask_preset(
            row.freq_prune, height, width, data_family(len(self.source.class_names), height, width)
        )
        taken: dict[str, Any] = {
            "model": self.scale.model,
            "tau": CoresetConfig.tau,
            "k": preset.k,
            "accuracy_weight": preset.accuracy_weight,
            "mask_lr": MaskConfig.lr,
            "mask_epochs": self.scale.mask_epochs,
        }
        unsaid: dict[str, Any] = {name: None for name, value in taken.items() if getattr(row, name) == value}
        return replace(row, **unsaid)

    def trained(self, row: Row, seed: int) -> tuple[Path, dict[str, Any]]:
        """Train a row's network, or go on with it, and return its run's folder and its last metrics.

        Raises
        ------
        OutOfTimeError
            The time was over before the end.
        """
        row = self.without_defaults(row)
        self.folder.mkdir(parents=True, exist_ok=True)
        run_dir = self.folder / row.key / f"seed-{seed}"
        run_dir.parent.mkdir(exist_ok=True)
        teacher = None
        if row.teacher:
            teacher, _ = self.trained(Row("teacher", model=row.teacher, adversarial=PGD), seed)
        config = self._config(row, seed)
        at_hand = cached_if_large(self.source, run_dir, place(config).device)
        with self.deadline.stopping(), nullcontext(self.source) if row.mask else at_hand as source:
            loader, mean, std = self._loader(row, seed, config, source)
            metrics = train_steps(
                loader,
                self.scale.iterations,
                config,
                run_dir,
                num_classes=len(self.source.class_names),
                image_shape=self.source.shape,
                normalization=Normalization(mean, std),
                teacher=teacher,
                provenance={"row": row.key, "mean": mean, "std": std, "source": self.check.sha256},
                on_event=self.deadline.watched(self.on_event),
            )
        return run_dir, metrics

    def _config(self, row: Row, seed: int) -> TrainConfig:
        """Return the settings of the scoring run, but for one long epoch."""
        config = self._scoring.training(row.model or self.scale.model)
        return replace(config, epochs=1, seed=seed, adversarial=row.adversarial)

    def _loader(
        self, row: Row, seed: int, config: TrainConfig, source: Source
    ) -> tuple[TrainLoader, tuple[float, ...], tuple[float, ...]]:
        if row.mask is not None:
            pack = open_pack(self.pack(row, seed))
            return pack_loader(pack, config), pack.header.mean, pack.header.std
        _, height, width = self.source.shape
        mean, std = self.check.statistics(self.check.good, height * width)
        store = ImageStore(source, self._chosen(row, seed), place(config).device)
        return PixelLoader(store, config.batch_size, (mean, std), seed=seed), mean, std

    def _chosen(self, row: Row, seed: int) -> NDArray[np.int64]:
        if row.score is None:
            return self.check.good.astype(np.int64)
        coreset = select_images(
            self.source,
            self.check.good,
            sha256=self.check.sha256,
            sample_prune=row.sample_prune,
            seed=seed,
            scores=self.scores_file,
            config=_coreset(row),
        )
        return coreset.rows

    def pack(self, row: Row, seed: int) -> Path:
        """Return the pack of a row, built if need be; coresets differ by seed, masks of all images do not.

        Raises
        ------
        ConfigError
            A row that no method builds.
        OutOfTimeError
            The time was over before the end.
        """
        row = self.without_defaults(row)
        # Without a coreset nothing in a pack hangs on the network's seed.
        seed = seed if row.score else 0
        path = self.folder / "packs" / f"{_images_of(row).key}-{seed}.h5"
        if path.exists():
            return path
        path.parent.mkdir(exist_ok=True)
        method = {(False, "energy"): "energy", (False, "lf"): "lf", (True, "lf"): "jelf"}
        try:
            name = method[row.score is not None, str(row.mask)]
        except KeyError:
            raise ConfigError(
                f"no pack of components by {row.mask} and images by {row.score}: with a score, use mask lf"
            ) from None
        config = BuildConfig(
            method=name,
            codec="sparse-f32",
            freq_prune=row.freq_prune,
            sample_prune=row.sample_prune,
            seed=seed,
            size=self.size,
            device=self.device,
            coreset=_coreset(row),
            masks=self._masks(row),
        )
        with self.deadline.stopping():
            build_pack(
                self.spec,
                path,
                config,
                scores=None if name == "energy" else self.scores_file.path,
                report=self.deadline.watched(self.on_event),
            )
        return path

    def _masks(self, row: Row) -> MaskConfig:
        _, height, width = self.source.shape
        k = None if row.k is None else min(row.k, component_count(row.freq_prune, height, width))
        return MaskConfig(
            epochs=row.mask_epochs or self.scale.mask_epochs,
            lr=row.mask_lr or MaskConfig.lr,
            k=k,
            accuracy_weight=row.accuracy_weight,
        )

    def accuracy(self, victim: nn.Module, run_dir: Path, device: torch.device) -> float:
        """Return the share of all test images that a network classifies right, kept in its folder."""
        path = run_dir / "test-accuracy.json"
        if not path.exists():
            images, labels = self.tested(len(self.test))
            right = (classify(victim, images, 500, device) == labels).double().mean()
            write_text(path, json.dumps({"test_accuracy": float(right)}) + "\n")
        return float(json.loads(path.read_text())["test_accuracy"])

    def tested(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return test images on [0, 1], float32 [n, C, H, W], and labels, in a seeded random order."""
        return drawn_images(self.test, np.arange(len(self.test)), count, 0)


def _images_of(row: Row) -> Row:
    """Return what a pack is made for, whichever network is trained from it and how."""
    return replace(row, model=None, adversarial=None, teacher=None)


def _coreset(row: Row) -> CoresetConfig:
    config = CoresetConfig(score=row.score or CoresetConfig.score, sampling=row.sampling)
    return config if row.tau is None else replace(config, tau=row.tau)

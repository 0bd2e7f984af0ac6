"""Accuracy per byte, a frontier: each codec at the quality that is best for a budget; resumable."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeprune import open_source
from edgeprune.sources import check_source
from edgeprune_formats import ConfigError

from ..harness.cells import measure_cells, restore_cells
from ..harness.deadline import Deadline, OutOfTimeError
from ..harness.results import save
from ..selection.fixed_budget import Recipe, train_on
from .budgets import (
    BARE,
    CODECS,
    PROBED,
    RAW,
    Fitted,
    Fitter,
    describe,
    make_fitter,
    nested_order,
    reencoded,
)
from .packs import ImageSet

__all__ = ["Settings", "choose", "finalists", "run"]

_NO_SEED = 1_000_000


@dataclass(frozen=True)
class Settings:
    """The scale of a comparison.

    Attributes
    ----------
    source : str
        The images, as `edgeprune.open_source` takes them: exact pixels, because images that were JPEG before
        flatter JPEG.
    recipe : Recipe
        How networks are trained: as many steps whatever the images.
    codecs : tuple of str
        Of `edgeprune_benchmarks.codec.budgets.CODECS`.
    psnrs : tuple of float
        Qualities in dB that are tried, rising.
    budgets_mb : tuple of float
        In units of 1,000,000 bytes, in the order in which they are done.
    seeds : int
        Orders of images, and networks, for each cell; each is tested on images of its own.
    copies : bool
        Learn from JPEG copies of the images, quality 75 and 4:2:0, to see how they change the comparison.
    minutes : float or None
        Stop after so long; the same command goes on.
    held_out : int
        Training images that qualities are chosen on, and that no network is trained on until they are.
    """

    source: str
    recipe: Recipe
    codecs: tuple[str, ...]
    psnrs: tuple[float, ...]
    budgets_mb: tuple[float, ...]
    seeds: int
    copies: bool
    minutes: float | None
    held_out: int = 1000

    def facts(self) -> dict[str, Any]:
        """Return what a cell depends on beside its own place in the table."""
        return {
            "source": Path(self.source).name,
            "copies": self.copies,
            "held_out": self.held_out,
            "tested": "other images with each seed",
            **self.recipe.facts(),
        }

    def lines(self) -> Iterator[tuple[float, str]]:
        """Yield budget and codec, budget after budget."""
        for budget in self.budgets_mb:
            yield from ((budget, codec) for codec in self.codecs)


def run(settings: Settings, output: Path, runs: Path, name: str = "accuracy-bytes") -> None:
    """Fill the table, and write ``NAME.json`` after each budget of a codec.

    Once it has one, what was measured of the next is in it too when the time is over.

    Whatever `runs` holds is not done again, nor what a ``NAME.json`` of the same settings holds. What that
    has of other budgets and codecs stays in it.

    Raises
    ------
    OutOfTimeError
        The time was over before the end.
    """
    runs.mkdir(parents=True, exist_ok=True)
    result = output / f"{name}.json"
    before = restore_cells(result, runs, settings.facts())
    with tempfile.TemporaryDirectory(dir=runs) as folder:
        click.echo(_fill(settings, result, _Bench(settings, runs, Path(folder)), before))


def _fill(settings: Settings, result: Path, bench: _Bench, before: dict[str, Any]) -> Path:
    chosen, rows, begun = (before.get(name, []) for name in ("chosen", "rows", "begun"))
    lines = list(settings.lines())
    for number, (budget, codec) in enumerate(lines):
        bench.measured = []
        try:
            tried = bench.choose(budget, codec)
            tested = bench.networks(budget, codec, tried)
        except OutOfTimeError:
            if rows and bench.measured:
                begun = _with(begun, bench.measured)
                save(result.parent, result.stem, _results(settings, bench, chosen, rows, begun))
            raise OutOfTimeError(f"{number} of {len(lines)} lines are done") from None
        chosen, rows = _with(chosen, tried), _with(rows, tested)
        save(result.parent, result.stem, _results(settings, bench, chosen, rows, begun))
    return result


def _results(
    settings: Settings,
    bench: _Bench,
    chosen: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    begun: list[dict[str, Any]],
) -> dict[str, Any]:
    done = {(row["budget_mb"], row["codec"]) for row in rows}
    # Of a whole table, also where a few codecs were asked for.
    whole = len({budget for budget, _ in done.union(settings.lines())}) * len(CODECS)
    return {
        "source": Path(settings.source).name,
        "copies": settings.copies,
        "recipe": asdict(settings.recipe),
        "train_images": bench.train_images,
        "test_images": bench.test_images,
        "held_out": settings.held_out,
        "seeds": max(settings.seeds, len({row["seed"] for row in rows})),
        "lines": [len(done), whole],
        "cell_settings": settings.facts(),
        "chosen": chosen,
        "rows": rows,
        # Of lines that are not done, so that these cells are there also where `runs` is gone.
        "begun": [row for row in begun if (row["budget_mb"], row["codec"]) not in done],
    }


def _with(rows: list[dict[str, Any]], line: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with those of a line, which take the place of earlier ones of its budget and codec.

    Earlier ones of other seeds stay, if they are of the quality that was chosen.
    """
    places = {(row["budget_mb"], row["codec"]) for row in line}
    seeds = {(row["budget_mb"], row["codec"], row["target_db"], row.get("seed")) for row in line}
    qualities = {place[:3] for place in seeds if place[3] is not None}
    kept = []
    for row in rows:
        place = row["budget_mb"], row["codec"], row["target_db"], row.get("seed")
        is_of_other_seed = row.get("seed") is not None and place[:3] in qualities and place not in seeds
        if place[:2] not in places or is_of_other_seed:
            kept.append(row)
    return [*kept, *line]


def choose(tried: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the quality with the highest accuracy on the images held out, one of the two `finalists`.

    It is that of the higher mean where both were judged by a second network; otherwise, and of equal ones, it
    is the first of them.
    """
    again = {row["target_db"]: row["accuracy"] for row in tried if _judge(row)}
    best = finalists(tried)
    if not all(row["target_db"] in again for row in best):
        return best[0]
    return max(best, key=lambda row: round(row["accuracy"] + again[row["target_db"]], 9))


def finalists(tried: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the two best qualities, the better one first, as the first network at each quality judges them.

    Each accuracy is averaged with those of the neighboring qualities, which count half; the lowest and the
    highest quality have one neighbor. Two networks of different seeds differ more than those of two
    neighboring qualities. Of equal ones the lower comes first.
    """
    rows = sorted((row for row in tried if not _judge(row)), key=lambda row: row["target_db"] or 0)
    found = np.array([row["accuracy"] for row in rows])
    weights = np.convolve(np.ones(len(rows)), (1, 2, 1))[1:-1]
    smooth = np.convolve(found, (1, 2, 1))[1:-1] / weights
    # Rounded, so that equal ones are equal.
    return [rows[place] for place in np.argsort(-smooth.round(9), kind="stable")[:2]]


def _judge(row: dict[str, Any]) -> int:
    """Return the number of the network that judged a quality: 0, or 1 where it was among the best."""
    return int(row.get("judge", 0))


class _Bench:
    """Measures one line after the other; what a PSNR means to a codec is found once.

    The images that are not held out to choose qualities are split in equal folds, and some may be left over.
    The first fold is the test images of the source. The network of seed k is tested on fold k, in exact
    pixels, and learns from all other images, also from those held out.
    """

    def __init__(self, settings: Settings, runs: Path, folder: Path) -> None:
        self._settings, self._runs, self._folder = settings, runs, folder
        self._deadline = Deadline(settings.minutes)
        train, test = (
            ImageSet.of(open_source(settings.source, split=split), f"cifar10-{split}")
            for split in ("train", "test")
        )
        self.train_images, self.test_images = len(train.labels), len(test.labels)
        self._exact = train.joined(test)
        self._learned = reencoded(self._exact) if settings.copies else self._exact
        held, order = settings.held_out, nested_order(train.labels, _NO_SEED)
        others = len(order[held:]) // self.test_images * self.test_images
        self._folds = [
            np.arange(self.train_images, len(self._exact.labels)),
            *order[held:][:others].reshape(-1, self.test_images),
        ]
        if settings.seeds > len(self._folds):
            raise ConfigError(f"the test images are enough for {len(self._folds)} seeds; give fewer `seeds`")
        self._held_out, self._rest = self._exact.take(order[:held]), self._learned.take(order[held:])
        self._fitters: dict[tuple[str, float | None], Fitter | None] = {}
        self.measured: list[dict[str, Any]] = []

    def choose(self, budget: float, codec: str) -> list[dict[str, Any]]:
        """Return what was tried for a budget, each with its accuracy on the images held out.

        From the middle one uphill, until two neighbors of the best were tried on either side. One at which
        all images fit is tried only if the next leaves some out: it wastes bytes otherwise. Then the two best
        are judged by a second network.
        """
        targets = [None] if codec == RAW else list(self._settings.psnrs)
        fit = [self._fits_all(codec, target, budget) for target in targets]
        tried_at_all = [
            target
            for target, this, following in zip(targets, fit, [*fit[1:], False], strict=True)
            if not (this and following) and self._fitter(codec, target) is not None
        ]
        if not tried_at_all:
            raise ConfigError(f"{codec} reaches none of these PSNRs; give others with `psnrs`")
        found: dict[int, dict[str, Any]] = {}
        place = len(tried_at_all) // 2
        while True:
            target = tried_at_all[place]
            found[place] = self._judged(budget, codec, target, 0)
            rows = [found[key] for key in sorted(found)]
            best = sorted(found)[rows.index(choose(rows))]
            near = [
                key
                for key in (best + 1, best - 1, best + 2, best - 2)
                if 0 <= key < len(tried_at_all) and key not in found
            ]
            if not near:
                break
            place = near[0]
        rivals = finalists(rows) if len(rows) > 1 else []
        return [*rows, *(self._judged(budget, codec, row["target_db"], 1) for row in rivals)]

    def _judged(self, budget: float, codec: str, target: float | None, judge: int) -> dict[str, Any]:
        name = f"{_name(budget, codec, target)}-choose" + (f"-{judge}" if judge else "")
        (row,) = self._measured(name, partial(self._try, budget, codec, target, judge))
        return row

    def networks(self, budget: float, codec: str, tried: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the test accuracies of all seeds, at the best of the qualities that were tried."""
        target = choose(tried)["target_db"]
        rows = []
        for seed in range(self._settings.seeds):
            measure = partial(self._test, budget, codec, target, seed)
            rows += self._measured(f"{_name(budget, codec, target)}-{seed}", measure)
        return rows

    def _measured(self, name: str, measure: partial[dict[str, Any]]) -> list[dict[str, Any]]:
        rows = measure_cells({name: measure}, self._runs, self._settings.facts(), self._deadline)
        self.measured += rows
        return rows

    def _try(self, budget: float, codec: str, target: float | None, judge: int) -> dict[str, Any]:
        fitted = self._fit(budget, codec, target, self._rest, judge)
        row = self._row(budget, codec, target, fitted) | ({"judge": judge} if judge else {})
        return row | {"accuracy": self._accuracy(fitted, self._held_out, judge)}

    def _test(self, budget: float, codec: str, target: float | None, seed: int) -> dict[str, Any]:
        fold = self._folds[seed]
        learned = self._learned.take(np.setdiff1d(np.arange(len(self._learned.labels)), fold))
        fitted = self._fit(budget, codec, target, learned, seed)
        row = self._row(budget, codec, target, fitted)
        row |= {"seed": seed, "test_accuracy": self._accuracy(fitted, self._exact.take(fold), seed)}
        click.echo(
            f"{codec} {row['setting']}, {budget:g} MB, seed {seed}: {row['images']:,} images, "
            f"test accuracy {row['test_accuracy']:.2%}"
        )
        return row

    def _accuracy(self, fitted: Fitted, test: ImageSet, seed: int) -> float:
        source, rows = fitted.images.source(), np.arange(len(fitted.images.labels))
        return train_on(source, check_source(source), test.source("test"), rows, self._settings.recipe, seed)

    def _row(self, budget: float, codec: str, target: float | None, fitted: Fitted) -> dict[str, Any]:
        fitter = self._fitter(codec, target)
        assert fitter is not None
        place = {"budget_mb": budget, "codec": codec, "target_db": target, **describe(fitter)}
        return {**place, "images": len(fitted.images.labels), "bytes": fitted.bytes}

    def _fits_all(self, codec: str, target: float | None, budget: float) -> bool:
        """Return whether all images at a quality fit a budget, by those that it was chosen on."""
        if target is None or (fitter := self._fitter(codec, target)) is None:
            return False
        return fitter.bytes_an_image(self._probe) * len(self._rest.labels) <= 1e6 * budget

    def _fit(self, budget: float, codec: str, target: float | None, images: ImageSet, seed: int) -> Fitted:
        fitter = self._fitter(codec, target)
        assert fitter is not None
        return fitter.fit(images.take(nested_order(images.labels, seed)), round(budget * 1e6))

    @cached_property
    def _probe(self) -> ImageSet:
        return self._rest.take(nested_order(self._rest.labels, 0)[:PROBED])

    def _fitter(self, codec: str, target: float | None) -> Fitter | None:
        """Return a codec at a quality, or None where it cannot reach the PSNR."""
        key = codec, target
        if key not in self._fitters:
            try:
                self._fitters[key] = make_fitter(codec, target, self._probe, self._folder)
            except ConfigError as error:
                click.echo(f"left out: {error}")
                self._fitters[key] = None
        return self._fitters[key]


def _name(budget: float, codec: str, target: float | None) -> str:
    plain = codec.replace(" ", "_").replace(":", "").replace(BARE, "bare")
    return f"{budget:g}-{plain}-{target or 0:g}"

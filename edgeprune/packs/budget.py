"""Building a pack of a given size: the quality, or the number of images, that fills it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgeprune_formats import ConfigError, PackWriteError
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.files import check_writable, partial_folder, replacing, write_error

from .config import BuildConfig
from .writing.report import BuildReport

__all__ = ["Fit", "build_within"]

# A pack is at most this much smaller than its budget.
SLACK = 0.03
MAX_BUILDS = 16


@dataclass(frozen=True)
class Fit:
    """What was chosen to fill a budget.

    Attributes
    ----------
    report : BuildReport
        Of the pack.
    config : BuildConfig
        With the quality, and the share of images left out, that were chosen.
    bytes, budget : int
        Of the finished file, and at most.
    builds : int
        How many packs were tried.
    why : str
        One line for a user.
    """

    report: BuildReport
    config: BuildConfig
    bytes: int
    budget: int
    builds: int
    why: str


def build_within(
    build: Callable[..., BuildReport],
    path: Path,
    config: BuildConfig,
    budget: int,
    *,
    min_quality: float | None = None,
) -> Fit:
    """Build a quantized pack whose file has at most `budget` bytes, and at most 3% less, or one image.

    Quality is what is searched for. With `min_quality` it does not fall below: images are left out instead.
    Tiles that are not given are tried once, at the quality of the first trial.

    Parameters
    ----------
    build : callable
        Called as ``build(path, config, beside=path of the pack, tile_trial=...)``, as `edgeprune.build_pack`.
    path : Path
        The pack, which appears when it is complete.
    config : BuildConfig
        Of codec ``quantized``, without a quality.
    budget : int
        In bytes.
    min_quality : float, optional
        1 to 100.

    Raises
    ------
    ConfigError
        Another codec, or no setting that fits.
    """
    if not get_codec(config.codec).quantizes:
        raise ConfigError(f"a `budget` needs codec quantized, whose quality it chooses, not {config.codec}")
    if config.quality is not None:
        raise ConfigError("a budget chooses the quality; leave out `quality` or `budget`")
    check_writable(path)
    try:
        with partial_folder(path) as folder, replacing(path, folder / path.name):
            # Scores and masks are made once, and named after the pack; duplicates are found once.
            kept = {"duplicates_kept": folder / "duplicates.npz"} if config.drop_duplicates else {}
            trial = folder / path.name
            search = _Search(partial(build, beside=path, **kept), trial, config, budget)
            fit = search.by_quality(1.0 if min_quality is None else min_quality, min_quality is not None)
    except PackWriteError as error:
        raise PackWriteError(str(error).replace(str(trial), str(path))) from error
    except OSError as error:
        raise write_error(path, error) from error
    return replace(fit, report=replace(fit.report, path=path))


class _Search:
    """Tries settings until the file fits."""

    def __init__(
        self, build: Callable[..., BuildReport], trial: Path, config: BuildConfig, budget: int
    ) -> None:
        self._build, self._trial, self._config, self._budget = build, trial, config, budget
        self._builds, self._tile_trial = 0, None

    def _size(self, config: BuildConfig) -> int:
        if self._builds == MAX_BUILDS:
            raise ConfigError(
                f"no setting within {SLACK:.0%} of {self._budget:,} B was found; choose a `quality`"
            )
        self._builds += 1
        self._report = self._build(self._trial, config, tile_trial=self._tile_trial)
        # Another tile in the middle of the search would make the size jump.
        self._tile_trial = self._report.header.provenance.get("tile")
        self._last = config
        return self._trial.stat().st_size

    def _fits(self, size: int) -> bool:
        return self._budget * (1 - SLACK) <= size <= self._budget

    def _found(self, size: int, why: str) -> Fit:
        return Fit(self._report, self._last, size, self._budget, self._builds, why)

    def by_quality(self, lowest: float, may_drop: bool) -> Fit:
        """Bisect the quality between `lowest` and 100, guided by the sizes' logarithms."""
        low, high = (lowest, 0.0), (100.0, math.inf)
        quality = max(75.0, lowest)
        while True:
            size = self._size(replace(self._config, quality=quality))
            if self._fits(size):
                return self._found(size, f"quality {quality:g} fills {size / self._budget:.1%} of the budget")
            if size > self._budget:
                if quality <= lowest:
                    return self._with_fewer(size, quality, may_drop)
                high = (quality, size)
            else:
                if quality >= 100:
                    return self._found(size, "quality 100 takes no more")
                low = (quality, size)
            if low[1] and self._builds == MAX_BUILDS - 1:
                # Sizes may go in steps of more than the slack.
                size = self._size(replace(self._config, quality=low[0]))
                return self._found(size, f"quality {low[0]:g} fills {size / self._budget:.1%} of the budget")
            quality = self._between(low, high)

    def _between(self, low: tuple[float, float], high: tuple[float, float]) -> float:
        if low[1] == 0:
            # The lowest is tried itself only once the search has come near it.
            return low[0] if high[0] - low[0] < 4 else (low[0] + high[0]) / 2
        if math.isinf(high[1]):
            return 100.0 if 100 - low[0] < 1 else (low[0] + 100) / 2
        share = math.log(self._budget * (1 - SLACK / 2) / low[1]) / math.log(high[1] / low[1])
        return low[0] + (high[0] - low[0]) * min(max(share, 0.05), 0.95)

    def _with_fewer(self, size: int, quality: float, may_drop: bool) -> Fit:
        if not may_drop:
            raise ConfigError(
                f"at quality {quality:g} the pack still has {size:,} B, more than {self._budget:,} B; raise "
                "`budget`, or give `min_quality` to leave out images"
            )
        everything = round(self._report.header.samples / (1 - self._config.images_dropped))
        size, count = self._most_images(size, quality, everything)
        why = f"quality {quality:g} is the least allowed, and {count / everything:.1%} of the images fit"
        return self._found(size, f"{why}, {size / self._budget:.1%} of the budget")

    def _most_images(self, size: int, quality: float, everything: int) -> tuple[int, int]:
        """Return the bytes of the pack with the most images that fit, which is built last, and their number.

        Near the end sizes may go in steps of more than the slack: those of an image.
        """
        fitting, exceeding = 0, self._report.header.samples
        count = exceeding
        while not self._fits(size) and exceeding - fitting > 1:
            if fitting and self._builds == MAX_BUILDS - 1:
                break
            guess = round(count * self._budget * (1 - SLACK / 2) / size)
            count = min(max(guess, fitting + 1), exceeding - 1)
            size = self._size(self._with_images(count, quality, everything))
            fitting, exceeding = (count, exceeding) if size <= self._budget else (fitting, count)
        if not fitting:
            raise ConfigError(
                f"not one image of quality {quality:g} fits {self._budget:,} B; raise `budget`, or lower "
                "`min_quality`"
            )
        if count != fitting:
            size = self._size(self._with_images(fitting, quality, everything))
        return size, fitting

    def _with_images(self, count: int, quality: float, everything: int) -> BuildConfig:
        return replace(self._config, quality=quality, sample_prune=1 - count / everything)

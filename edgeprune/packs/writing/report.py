"""What a build did, and what a user should know of the pack that came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import PackHeader, open_pack
from edgeprune_formats.targets import LABEL, Column

from ...sources import Source

__all__ = ["BuildReport", "PartReport", "build_report"]


@dataclass(frozen=True)
class BuildReport:
    """What `edgeprune.build_pack` did.

    Attributes
    ----------
    path : Path
        The pack.
    header : PackHeader
        Its header.
    skipped : tuple of str
        A message for each image that could not be read.
    empty_classes : tuple of str
        Classes of which the coreset holds no image.
    psnr : float
        Of the stored images against the originals, in dB over all pixels; infinite if nothing was dropped.
    seconds : float
        Duration of the build.
    artifacts : tuple of Path
        Files that were made on the way and can be used again: scores, an FSE-Net.
    images, classes : int
        Images in the pack, and classes of which it holds images.
    bytes_per_image : float
        Of the pack's file.
    source_bytes_per_image : float
        The same images in the source: the mean size of their files for ``imagefolder``, otherwise their
        pixels as uint8 or uint16.
    columns : tuple of Column
        The targets beside the label.
    single_classes : tuple of str
        Classes of which the pack holds one image.
    notes : tuple of str
        What a user should know of the source.
    """

    path: Path
    header: PackHeader
    skipped: tuple[str, ...]
    empty_classes: tuple[str, ...]
    psnr: float
    seconds: float
    artifacts: tuple[Path, ...]
    images: int
    classes: int
    bytes_per_image: float
    source_bytes_per_image: float
    single_classes: tuple[str, ...]
    columns: tuple[Column, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def targets_text(self) -> str:
        """The targets beside the label, to follow the number of classes; "" where there are none."""
        named = [f"{column.name} ({column.kind})" for column in self.columns]
        return f", target{'s' * (len(named) > 1)} {', '.join(named)}" if named else ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Lines for a user: on the source, a pack larger than it, one class, classes of one image."""
        messages = list(self.notes)
        if self.bytes_per_image > self.source_bytes_per_image:
            remedy = "lower the quality" if self.header.step else "use codec quantized"
            messages.append(
                f"the pack takes {self.bytes_per_image:,.0f} B an image, more than its source with "
                f"{self.source_bytes_per_image:,.0f} B; {remedy}"
            )
        if self.classes == 1:
            messages.append("all images are of one class, from which a network learns nothing")
        if self.single_classes:
            named = ", ".join(self.single_classes[:3]) + (", ..." if len(self.single_classes) > 3 else "")
            messages.append(
                f"{len(self.single_classes):,} of {self.classes:,} classes have one image ({named})"
            )
        return tuple(messages)


@dataclass(frozen=True)
class PartReport:
    """What `edgeprune.packs.build.build_share` did.

    Attributes
    ----------
    path : Path
        The part.
    images, samples : int
        Images in it, and in the whole pack.
    made : bool
        Whether it was made; False if it was there, of this build, and sound.
    """

    path: Path
    images: int
    samples: int
    made: bool


def build_report(
    path: Path, source: Source, skipped: tuple[str, ...], artifacts: tuple[Path, ...], seconds: float
) -> BuildReport:
    """Describe the pack that was built of a source; the arguments are attributes of `BuildReport`."""
    with open_pack(path) as pack:
        header, labels, rows = pack.header, pack.labels, pack.source_index
        columns = tuple(target.column for name, target in pack.targets.items() if name != LABEL)
    psnr = header.provenance["result"]["psnr_db"]
    names = header.class_names
    # Labels of images without classes are all 0, and stand for none.
    counts = np.bincount(labels, minlength=len(names))[: len(names)]
    empty, single = _names(names, counts == 0), _names(names, counts == 1)
    # A source need not know; then its pixels count.
    of_pixels = math.prod(source.shape) * header.bits // 8
    stored_bytes = getattr(source, "stored_bytes", lambda rows: len(rows) * of_pixels)
    return BuildReport(
        path=path,
        header=header,
        skipped=skipped,
        empty_classes=empty,
        psnr=math.inf if psnr is None else psnr,
        seconds=seconds,
        artifacts=artifacts,
        images=len(labels),
        classes=int(np.count_nonzero(counts)),
        bytes_per_image=path.stat().st_size / len(labels),
        source_bytes_per_image=stored_bytes(rows) / len(rows),
        single_classes=single,
        columns=columns,
        notes=getattr(source, "notes", ()),
    )


def _names(names: tuple[str, ...], chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(names[label] for label in np.nonzero(chosen)[0])

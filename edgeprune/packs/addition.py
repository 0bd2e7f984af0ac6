"""More images beside the packs of a folder: a pack of their own that mixes with them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune_formats import ConfigError, PackHeader, PackWriteError, open_pack
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.files import check_writable, partial_folder, publish, write_error
from edgeprune_formats.targets import LABEL, Column, Target
from edgeprune_runtime.class_names import united_classes, with_classes
from edgeprune_runtime.loading.mixture import pooled_statistics
from edgeprune_runtime.training.settings import TEACHER

from ..sources import Source, SourceOptions, source_targets, with_options
from ..sources.base import source_bits
from ..sources.columns.requests import parse_targets
from ..sources.naming.options import without_options
from ..work.callbacks import StageProgress
from .build import build_pack, open_for_build
from .config import BuildConfig
from .encoding.quality import DEFAULT_ROUNDING, quality_of
from .planning.header import TakenOver
from .writing.report import BuildReport

if TYPE_CHECKING:
    from .encoding.teacher import PackTeacher

__all__ = ["Addition", "add_images"]

_DIGITS = 4
_PARTIAL = "added.h5"


@dataclass(frozen=True)
class Addition:
    """A pack that was added to a folder.

    Attributes
    ----------
    report : BuildReport
        On the new pack. Its classes are those of the packs in the folder, then new ones.
    new_classes : tuple of str
        Classes that no pack in the folder had.
    """

    report: BuildReport
    new_classes: tuple[str, ...]


@dataclass(frozen=True)
class _Known:
    """A pack of the folder, as far as an addition depends on it."""

    path: Path
    header: PackHeader
    compression: str
    columns: tuple[Column, ...]


def add_images(
    source: str | Source,
    folder: str | Path,
    *,
    split: str = "train",
    skip_bad: bool = False,
    seed: int = 0,
    teacher: str | Path | PackTeacher | None = None,
    jobs: int = 1,
    progress: StageProgress | None = None,
) -> Addition:
    """Write a pack of a source's images into a folder of packs, so that they can be mixed; none is changed.

    Size, codec, components, compression, step, tiles, color space and rounding are those of the last pack by
    name. Mean and standard deviation are those of all packs, pooled, so that what was trained from them still
    gets its images as it knows them. Classes are matched by name, however Unicode composes accents, and the
    pack lists those of all packs before its new ones. It has the targets of the last pack, whose classes are
    matched by name as well, and get no new ones. Its name comes after theirs: ``photos.h5`` is followed by
    ``photos0001.h5``. Several processes may add at once.

    Parameters
    ----------
    source, jobs, progress
        As in `edgeprune.build_pack`.
    teacher : path or PackTeacher, optional
        As in `edgeprune.build_pack`; needed where the last pack was built with one, which may be another.
    folder : path
        Holds one pack or more, ``*.h5``, with images of one shape.
    split, skip_bad, seed
        As in `edgeprune.BuildConfig`.

    Raises
    ------
    ConfigError
        The folder holds no pack, or packs of several shapes; the source has images of another, or is what one
        of the packs was built from; classes that cannot be matched by name; or targets that are not those of
        the last pack.
    SourceError, PackFormatError, PackWriteError
        As `edgeprune.build_pack`, and a pack of the folder that is damaged.
    """
    folder = Path(folder)
    known = _packs_in(folder)
    config, columns = _config(known[-1], split, skip_bad, seed), _own_columns(known[-1], teacher)
    if isinstance(source, str):
        spec = _with_columns(source, columns, known[-1].path, _built_from(known[-1]))
        source = open_for_build(spec, config, known[-1].header.channels)
    headers = [one.header for one in known]
    if source.shape != headers[0].shape or source_bits(source) != headers[0].bits:
        raise ConfigError(
            f"{source.spec}: images of shape {source.shape} and {source_bits(source)} bits, and the packs in "
            f"{folder} have {headers[0].shape} and {headers[0].bits}; bring the images to that shape"
        )
    _require_classes(source, known)
    before = united_classes([(one.path, one.header.class_names) for one in known])
    own = [name for label, name in enumerate(source.class_names) if np.any(source.labels == label)]
    classes = united_classes([(folder, before), (source.spec, own)])
    mean, std = pooled_statistics(headers)
    targets = _columns_as(source, columns, known[-1].path)
    taken = TakenOver(classes, headers[-1].step, mean, std, targets)
    try:
        # Of one name, so that what a killed process has left is found by the next.
        with partial_folder(folder / _PARTIAL) as place:
            made = place / _PARTIAL
            report = build_pack(
                source, made, config, teacher=teacher, taken_over=taken, jobs=jobs, progress=progress
            )
            _require_new(source, report.header, known)
            path = _publish(made, folder)
    except PackWriteError as error:
        raise PackWriteError(str(error).replace(str(made), str(folder))) from error
    except OSError as error:
        raise write_error(folder, error) from error
    return Addition(replace(report, path=path), classes[len(before) :])


def _own_columns(pack: _Known, teacher: object | None) -> tuple[Column, ...]:
    """Return the columns of a pack that a source is to have: not what a teacher has said.

    Raises
    ------
    ConfigError
        The pack was built with a teacher, and there is none, or the other way round.
    """
    is_taught = _has_teacher(pack.header.provenance) and any(one.name == TEACHER for one in pack.columns)
    if is_taught and teacher is None:
        raise ConfigError(
            f"{pack.path}: was built with a teacher, whose probabilities the new images need as well; name "
            "its run with `teacher`"
        )
    if teacher is not None and not is_taught:
        raise ConfigError(f"{pack.path}: was built without a teacher; leave `teacher` out")
    return tuple(one for one in pack.columns if not (is_taught and one.name == TEACHER))


def _has_teacher(provenance: object) -> bool:
    """Tell whether a pack was built with a teacher, or merged of packs that were, each with its own."""
    if not isinstance(provenance, Mapping):
        return False
    merged = provenance.get("merged")
    parents = merged.get("parents") if isinstance(merged, Mapping) else None
    return "teacher" in provenance or (isinstance(parents, list) and any(map(_has_teacher, parents)))


def _built_from(pack: _Known) -> object:
    source = pack.header.provenance.get("source")
    return source.get("spec") if isinstance(source, dict) else None


def _packs_in(folder: Path) -> list[_Known]:
    """Return the packs of a folder by name."""
    paths = _by_name(folder)
    if not paths:
        raise ConfigError(
            f"{folder}: holds no pack (*.h5) to add to; build the first one with edgeprune build SOURCE -o "
            f"{folder / 'NAME.h5'}"
        )
    check_writable(folder / _PARTIAL)
    known = []
    for path in paths:
        with open_pack(path) as pack:
            columns = tuple(one.column for name, one in pack.targets.items() if name != LABEL)
            known.append(_Known(path, pack.header, pack.compression, columns))
    for one in known[1:]:
        if one.header.shape != known[0].header.shape:
            raise ConfigError(
                f"{one.path}: images of shape {one.header.shape}, and those of {known[0].path} have "
                f"{known[0].header.shape}; keep packs that are mixed in a folder of their own"
            )
    return known


def _by_name(folder: Path) -> list[Path]:
    # Scores of a build lie beside its pack.
    found = [path for path in folder.glob("[!.]*.h5") if not path.name.endswith(".scores.h5")]
    return sorted(found, key=lambda path: os.fsencode(path.name))


def _config(known: _Known, split: str, skip_bad: bool, seed: int) -> BuildConfig:
    """Return the settings that make a pack like this one, but for the step, of which a quality is near."""
    header = known.header
    quantizes = get_codec(header.codec).quantizes
    made = (header.provenance.get(name) for name in ("converted", "config"))
    known_by = [one["rounding"] for one in made if isinstance(one, dict) and one.get("rounding")]
    channels = "as-is"
    if header.bits == 8:
        channels = "gray" if header.channels == 1 else "rgb" if header.channels == 3 else channels
    size = header.height if header.height == header.width else None
    config = header.provenance.get("config")
    return BuildConfig(
        channels=channels,
        fast_jpeg=size is not None and isinstance(config, dict) and config.get("fast_jpeg") is True,
        freq_prune=1 - header.components / (header.height * header.width),
        codec=header.codec,
        compression=known.compression,
        quality=quality_of(header.step) if quantizes else None,
        color=header.color_space if quantizes and header.channels == 3 else None,
        tile=header.tile if quantizes else None,
        rounding=(known_by or [DEFAULT_ROUNDING])[0] if quantizes else None,
        size=size,
        split=split,
        skip_bad=skip_bad,
        seed=seed,
    )


def _require_classes(source: Source, known: Sequence[_Known]) -> None:
    """Raise `ConfigError` where some have classes and some have none: a label of 0 would stand for both."""
    has = bool(source.class_names)
    for one in known:
        if bool(one.header.class_names) != has:
            facts = ("has classes", "has none") if has else ("has no classes", "has")
            raise ConfigError(
                f"{source.spec}: {facts[0]}, and {one.path} {facts[1]}; give images of the same kind"
            )


def _require_new(source: Source, header: PackHeader, known: Sequence[_Known]) -> None:
    """Raise `ConfigError` where a pack was built from the very same images, or merged of one that was."""
    for one in known:
        if _contents(one.header) & _contents(header):
            raise ConfigError(f"{source.spec}: there is no new image; {one.path} was built from these")


def _contents(header: PackHeader) -> set[str]:
    """Return the digests of what a pack was built from; a merged one has several."""
    facts = header.provenance.get("source")
    listed = facts.get("sources") if isinstance(facts, dict) else None
    found = listed if isinstance(listed, list) else [facts]
    digests = [one.get("sha256") for one in found if isinstance(one, dict)]
    return {digest for digest in digests if isinstance(digest, str)}


def _publish(made: Path, folder: Path) -> Path:
    """Give a pack the name after those that there are, also those that have come in the meantime."""
    while True:
        path = _next_name(_by_name(folder)[-1])
        try:
            publish(made, path, is_new=True)
        except FileExistsError:
            continue
        return path


def _next_name(last: Path) -> Path:
    """Return the name that follows by counting on; its number has as many digits, so that it sorts after."""
    stem, digits = re.fullmatch(r"(.*?)([0-9]*)", last.stem, re.DOTALL).groups()  # type: ignore[union-attr]
    if digits.strip("9"):
        return last.with_name(f"{stem}{int(digits) + 1:0{len(digits)}}.h5")
    return last.with_name(f"{stem}{digits}{1:0{_DIGITS}}.h5")


def _with_columns(spec: str, columns: Sequence[Column], path: Path, built_from: object = None) -> str:
    """Return the text of a source that gives the columns of a pack: those that it does not name, by name.

    A column that the pack's own source made of others, as in ``pose=x+y:value``, is made of these again.
    `built_from` is that source's text as the pack's provenance has it.

    Raises
    ------
    ConfigError
        Such a source has no columns.
    """
    if not columns:
        return spec
    given = without_options(spec)[1].target
    named = {request.name for request in parse_targets(given)}
    made = _made_of(built_from)
    missing = [
        f"{made.get(column.name, column.name)}:{column.kind}"
        for column in columns
        if column.name not in named
    ]
    options = SourceOptions(target=(*given, *missing))
    try:
        return with_options(spec, options)
    except ConfigError:
        raise ConfigError(
            f"{spec}: gives no targets, and {path} has target {columns[0].name!r}; take a source that has it"
        ) from None


def _made_of(spec: object) -> dict[str, str]:
    """Return the columns that a recorded source made of others, as ``NAME=COLUMN+COLUMN``, by name."""
    try:
        requests = parse_targets(without_options(str(spec))[1].target)
    except ConfigError:
        # The record of another release, or no text at all.
        return {}
    made = [one for one in requests if one.columns != (one.name,)]
    return {one.name: f"{one.name}={'+'.join(one.columns)}" for one in made}


def _columns_as(source: Source, columns: Sequence[Column], path: Path) -> tuple[Target, ...]:
    """Return the columns of a source as a pack has them, with its classes, matched by name.

    Raises
    ------
    ConfigError
        The source lacks one or has another, or it differs in kind, or an image is of a class that the pack
        lacks.
    """
    known = {target.column.name: target for target in source_targets(source)}
    wanted = {column.name: column for column in columns}
    for name in [*wanted, *known]:
        if (name in wanted) != (name in known):
            one, other = (path, source.spec) if name in wanted else (source.spec, path)
            raise ConfigError(f"{one}: has target {name!r}, and {other} has not; give both the same targets")
    return tuple(_as_column(source.spec, known[name], column, path) for name, column in wanted.items())


def _as_column(spec: str, target: Target, column: Column, path: Path) -> Target:
    own = target.column
    if (own.kind, own.width, own.unit or column.unit) != (column.kind, column.width, column.unit):
        theirs, ours = (f"{one.kind} of {one.width} {one.unit}".strip() for one in (own, column))
        raise ConfigError(f"{spec}: target {column.name!r} is {theirs}, and {ours} in {path}")
    if column.classes:
        target, lacking = with_classes(target, column.classes)
        if lacking:
            raise ConfigError(
                f"{spec}: target {column.name!r} has images of classes that {path} lacks: "
                f"{', '.join(lacking[:5])}; only the label gets new ones, so leave these images out"
            )
    return Target(column, target.values)

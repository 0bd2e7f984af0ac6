"""The parts of a build, made by tasks that know nothing of each other, put together to the pack."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeprune_formats import (
    ConfigError,
    EdgePruneError,
    Pack,
    PackHeader,
    PackWriteError,
    PackWriter,
    open_pack,
    verify_pack,
)
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.files import check_writable
from edgeprune_formats.targets import LABEL, Target
from edgeprune_runtime.errors import ArtifactError
from edgeprune_runtime.loading.mixture import Mixture
from edgeprune_runtime.loading.targets import column_of

from ...work.callbacks import JoinedProgress, StageProgress
from ...work.processes import Workers
from ...work.temporary import work_folder
from ..encoding.encoder import UnreadableError
from ..planning.header import utc_now
from ..planning.plan import Plan, Share
from .measured import Content, Measured, require_scored, with_content
from .write import complete, write_pack, write_part

__all__ = [
    "assemble",
    "build_part",
    "joined_targets",
    "make_folder",
    "part_path",
    "remove_parts",
    "write_plan",
]

# Chunks of a part that is kept while the others are made, where masks take long.
CHUNKS_IN_PART = 16


def write_plan(
    plan: Plan, path: Path, workers: Workers, progress: StageProgress | None = None
) -> tuple[str, ...]:
    """Write the pack: at once, or in parts that several processes make and that are kept meanwhile.

    Returns
    -------
    tuple of str
        A message for each image that could not be read; of the first process alone.

    Raises
    ------
    ConfigError, SourceError, UnreadableError, ArtifactError, PackFormatError, PackWriteError
        See `edgeprune.packs.writing.write` and `assemble`.
    """
    folder = work_folder(path)
    place = folder / f"parts-{plan.build}"
    if workers.rank == 0:
        remove_parts(folder, but=place)
    if workers.count == 1 and plan.encoder.select_file is None:
        return write_pack(plan, path, progress).bad
    if workers.rank == 0:
        make_folder(place)
    workers.wait()
    _write_parts(plan, place, workers, progress)
    skipped: tuple[str, ...] = ()
    if workers.rank == 0:
        skipped = assemble(place, path, progress)
        remove_parts(folder)
    workers.wait()
    return skipped


def _write_parts(plan: Plan, place: Path, workers: Workers, progress: StageProgress | None) -> None:
    """Write this process's share of the parts."""
    chunks = plan.header.chunks
    count = min(chunks, max(workers.count, -(-chunks // CHUNKS_IN_PART)))
    unreadable = False
    shares = [Share(number, count) for number in range(1 + workers.rank, count + 1, workers.count)]
    tell = progress and JoinedProgress(progress, sum(plan.images(share) for share in shares))
    for share in shares:
        try:
            build_part(plan, place, share, tell)
        except UnreadableError:
            unreadable = True
            break
        if tell is not None:
            tell.before += plan.images(share)
    if workers.any(unreadable):
        raise UnreadableError


def part_path(folder: Path, share: Share) -> Path:
    """Return the name of a part."""
    width = len(str(share.count))
    return folder / f"part-{share.number:0{width}d}-of-{share.count}.h5"


def build_part(plan: Plan, folder: Path, share: Share, progress: StageProgress | None = None) -> bool:
    """Write one part into a folder, unless it is there, of this build, and sound; tell whether it was not.

    Raises
    ------
    ConfigError, SourceError, UnreadableError, PackWriteError
        See `edgeprune.packs.writing.write.write_part`.
    """
    path = part_path(folder, share)
    if _is_sound(path, plan.build, share):
        return False
    check_writable(path)
    write_part(plan, path, share, progress)
    return True


def _is_sound(path: Path, build: str, share: Share) -> bool:
    if not path.is_file():
        return False
    try:
        with open_pack(path) as pack:
            marker = pack.header.provenance.get("part", {})
            own = (marker["build"], marker["number"], marker["of"]) == (build, share.number, share.count)
    except (EdgePruneError, OSError, KeyError, TypeError):
        return False
    return own and not verify_pack(path)


@dataclass(frozen=True, eq=False)
class _Part:
    """A part that was opened, and what it tells of itself."""

    pack: Pack
    share: Share
    build: str
    samples: int
    chunk_samples: int
    measured: Measured
    content: Content
    scored_sha256: str


def make_folder(folder: Path) -> None:
    """Make the folder of parts; raises `PackWriteError` if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PackWriteError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error


def remove_parts(folder: Path, *, but: Path | None = None) -> None:
    """Remove what a build in parts has left in its work folder, except `but`; an empty folder too."""
    for parts in folder.glob("parts-*"):
        if parts != but:
            shutil.rmtree(parts, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def _parts_in(folder: Path) -> list[Path]:
    """Return the parts in a folder, by name.

    Raises
    ------
    ArtifactError
        There is none.
    """
    found = sorted(folder.glob("part-*-of-*.h5"))
    if not found:
        raise ArtifactError(
            f"{folder}: holds no part of a build; make them with: edgeprune build SOURCE --part 1/N "
            f"-o {folder}"
        )
    return found


def assemble(folder: Path, path: Path, progress: StageProgress | None = None) -> tuple[str, ...]:
    """Write the pack that one process would have made; it appears when it is complete.

    Payloads are copied as they are, chunk by chunk.

    Parameters
    ----------
    folder : Path
        With all parts of one build.
    path : Path
        The pack.
    progress : callable, optional
        Called as ``progress("assembling", images done, images in all)``.

    Returns
    -------
    tuple of str
        A message for each image that could not be read.

    Raises
    ------
    ArtifactError
        Parts are missing or of different builds, or the images are not those that were scored.
    PackFormatError
        A part is damaged.
    PackWriteError
        The pack cannot be written.
    """
    check_writable(path)
    with ExitStack() as stack:
        parts = [_opened(stack.enter_context(open_pack(one))) for one in _parts_in(folder)]
        parts.sort(key=lambda part: part.share.number)
        _require_whole(folder, parts)
        content, measured = parts[0].content, parts[0].measured
        for part in parts[1:]:
            content, measured = content + part.content, measured + part.measured
        header = _header(parts)
        content = content.with_digest(header.shape, header.class_names)
        require_scored(content.sha256, parts[0].scored_sha256)
        with _writer(path, header, parts) as writer:
            _copy(writer, parts, progress)
            complete(writer, measured, with_content(header.provenance, content))
        return content.bad


def _opened(pack: Pack) -> _Part:
    try:
        marker = pack.header.provenance["part"]
        content = marker["content"]
        bad = tuple(str(message) for message in marker["bad"])
        return _Part(
            pack,
            Share(int(marker["number"]), int(marker["of"])),
            str(marker["build"]),
            int(marker["samples"]),
            int(marker["chunk_samples"]),
            Measured.from_json(marker["measured"]),
            Content(int(content["images"]), int(content["digest"], 16), bad, str(marker["sha256"])),
            str(marker["scored_sha256"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, EdgePruneError) as error:
        raise ArtifactError(
            f"{pack.path}: no part of a build, or one that was changed; remove it, and build the part again"
        ) from error


def _require_whole(folder: Path, parts: list[_Part]) -> None:
    first = parts[0]
    for part in parts:
        if (part.build, part.share.count) != (first.build, first.share.count):
            raise ArtifactError(
                f"{part.pack.path}: a part of another build than {first.pack.path.name} (made with other "
                "settings, images or version); remove it, and build the part again"
            )
    there = {part.share.number for part in parts}
    missing = [str(number) for number in range(1, first.share.count + 1) if number not in there]
    if missing:
        named = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
        raise ArtifactError(
            f"{folder}: {len(missing)} of {first.share.count} parts missing ({named}); build them with: "
            f"edgeprune build SOURCE --part {missing[0]}/{first.share.count} -o {folder}"
        )


def _header(parts: list[_Part]) -> PackHeader:
    first = parts[0]
    provenance = {
        name: value for name, value in first.pack.header.provenance.items() if name not in ("part", "result")
    }
    return replace(
        first.pack.header,
        samples=first.samples,
        chunk_samples=first.chunk_samples,
        created=utc_now(),
        provenance=provenance,
    )


def _writer(path: Path, header: PackHeader, parts: list[_Part]) -> PackWriter:
    packs = [part.pack for part in parts]
    streams = [field.name for field in get_codec(header.codec).fields(header) if field.shape is None]
    # All of the payload where that is one stream; others wait in a file.
    sizes = {streams[0]: sum(p.payload_bytes for p in packs)} if len(streams) == 1 and _only(header) else {}
    scores = [pack.scores for pack in packs if pack.scores is not None]
    return PackWriter(
        path,
        header,
        np.concatenate([pack.labels for pack in packs]),
        np.concatenate([pack.source_index for pack in packs]),
        compression=packs[0].compression,
        scores=np.concatenate(scores) if len(scores) == len(packs) else None,
        stream_bytes=sizes,
        targets=joined_targets(packs),
    )


def _only(header: PackHeader) -> bool:
    return len(get_codec(header.codec).fields(header)) == 1


def _copy(writer: PackWriter, parts: list[_Part], progress: StageProgress | None) -> None:
    done = 0
    for part in parts:
        for chunk in range(part.pack.header.chunks):
            images = len(part.pack.header.chunk_rows(chunk))
            writer.append_arrays(part.pack.read_payload(chunk), images)
            done += images
            if progress is not None:
                progress("assembling", done, writer.header.samples)
        part.pack.close()


def joined_targets(packs: Sequence[Pack]) -> list[Target]:
    """Return the columns that all packs have, beside the labels, one pack's values after another's.

    Raises
    ------
    ConfigError
        A pack lacks a column of another, or has it of another kind or with other classes.
    PackFormatError
        A column is damaged.
    """
    names = [set(pack.targets) - {LABEL} for pack in packs]
    for pack, own in zip(packs, names, strict=True):
        if own != names[0]:
            one, other = (pack, packs[0]) if own - names[0] else (packs[0], pack)
            name = min(set(one.targets) - set(other.targets))
            raise ConfigError(f"{one.path}: has target {name!r}, and {other.path} has not; build both alike")
    mixed, joined = Mixture(packs), []
    for name in packs[0].targets:
        if name != LABEL:
            column = column_of(mixed, name)
            parts = [pack.targets[name].take() for pack in packs]
            if any((one.column.dtype, one.column.top) != (column.dtype, column.top) for one in parts):
                # As what holds all of them.
                column = replace(column, dtype="", top=0)
                parts = [Target(column, pack.targets[name].read()) for pack in packs]
            joined.append(Target(column, np.concatenate([one.values for one in parts])))
    return joined

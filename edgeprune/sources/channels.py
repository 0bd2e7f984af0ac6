"""Which channels the images of a source are read with: what they have, or what a user asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace

import numpy as np

from edgeprune_formats import ConfigError

from ..errors import SourceError
from .arrays import ArraySource
from .base import Source
from .decoding.encoded import EncodedSource
from .decoding.images import image_kind, pillow_guard
from .decoding.kinds import GRAY, NAMED, RGB, Kind, Wanted
from .naming.options import CHANNELS

__all__ = ["with_channels"]

# Images whose headers are looked at, spread over the source.
_LOOKED_AT = 32
_BY_COUNT = {kind.channels: name for name, kind in NAMED.items()}


def with_channels(source: Source, channels: str, planes: int | None = None) -> Source:
    """Return a source that reads images with these channels.

    Parameters
    ----------
    source : Source
    channels : str
        ``"gray"``, ``"rgb"`` or ``"rgba"`` convert all images to that, of 8 bits. ``"as-is"`` looks at the
        headers of some images: what all of them have is what is read, with all their bits, and a mixture of
        8-bit gray and color is read as RGB. Transparency is composited on white.
    planes : int, optional
        How many channels are needed, by a network for example; with ``"as-is"``, images of others are
        converted where that can be.

    Raises
    ------
    ConfigError
        `channels` is none of these.
    SourceError
        Images of several kinds, or of one that cannot be converted.
    """
    if channels not in CHANNELS:
        raise ConfigError(f"`channels` must be one of {', '.join(CHANNELS)}, not {channels!r}")
    if isinstance(source, ArraySource):
        return _of_array(source, channels, planes)
    return _of_encoded(source, channels, planes) if isinstance(source, EncodedSource) else source


def _of_array(source: ArraySource, channels: str, planes: int | None) -> ArraySource:
    if channels == "as-is" and planes in (None, source.shape[0]):
        return source
    kind = NAMED.get(channels if channels != "as-is" else _BY_COUNT.get(planes or 0, ""))
    stored = source.pixels.shape[1]
    if kind is None or (stored not in (1, 3) and stored != kind.channels):
        remedy = 'build with `channels="as-is"`' if channels != "as-is" else "give images that have them"
        raise SourceError(
            f"{source.spec}: {source.array_name} has {stored} channels, which cannot be made "
            f"{kind or planes}; {remedy}"
        )
    return replace(source, kind=kind)


def _of_encoded(source: EncodedSource, channels: str, planes: int | None) -> EncodedSource:
    if channels == "as-is":
        wanted, notes = _as_they_are(source, planes)
    else:
        wanted, notes = Wanted(NAMED[channels]), ()
    shape = (wanted.kind.channels, *source.shape[1:])
    return replace(source, wanted=wanted, shape=shape, notes=(*source.notes, *notes))


def _as_they_are(source: EncodedSource, planes: int | None) -> tuple[Wanted, tuple[str, ...]]:
    """Return what to decode to, and notes, from the headers of some images."""
    found: dict[Kind, str] = {}
    counts: Counter[Kind] = Counter()
    notes: list[str] = []
    for name, kind, note in _kinds(source):
        found.setdefault(kind, name)
        counts[kind] += 1
        notes += [f"{name}: {note}"] if note and not notes else []
    mixed = set(found) == {GRAY, RGB}
    kind = RGB if mixed or not found else next(iter(found))
    if planes is not None and (len(found) > 1 or kind.channels != planes) and not (mixed and planes == 3):
        if planes not in _BY_COUNT:
            raise SourceError(f"{found.get(kind, source.spec)}: is {kind}, and {planes} planes are needed")
        return Wanted(NAMED[_BY_COUNT[planes]]), tuple(notes)
    if len(found) > 1 and not mixed:
        _refuse(found)
    if mixed and planes is None:
        some = f"{counts[GRAY]} of {sum(counts.values())} images looked at are gray, the others color"
        notes.append(f'{some}; all are read as RGB; `channels="gray"` reads one plane')
    others = f"{found[kind]} is {kind}" if kind in found else ""
    return Wanted(kind, convert=False, others=others), tuple(notes)


def _kinds(source: EncodedSource) -> Iterator[tuple[str, Kind, str]]:
    """Give name, kind and note of some images, without those that cannot be read."""
    rows = np.unique(np.linspace(0, len(source) - 1, _LOOKED_AT).astype(np.intp)).tolist()
    while rows:
        # What has raised gives no more, so the rest is asked for anew.
        with pillow_guard(), closing(source.contents([*rows])) as contents, suppress(SourceError):
            while rows:
                row = rows.pop(0)
                name = source.name(row)
                yield name, *image_kind(next(contents), name=name)


def _refuse(found: dict[Kind, str]) -> None:
    (first, its_name), (other, name) = list(found.items())[:2]
    remedy = 'pass `channels="rgb"` (or gray) to convert all'
    if not {first.channels, other.channels} <= {1, 3}:
        remedy = "put them in sources of their own"
    raise SourceError(f"{name}: is {other}, but {its_name} is {first}; {remedy}")

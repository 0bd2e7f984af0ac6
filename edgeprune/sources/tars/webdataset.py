"""Images in tar files, as WebDataset lays them out."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError
from edgeprune_formats.targets import Target

from ...errors import SourceError
from ..base import Rows
from ..columns.requests import are_enough, parse_targets
from ..columns.values import make_target
from ..decoding.encoded import EncodedSource, first_shape
from ..decoding.files import as_text
from ..decoding.images import IMAGE_SUFFIXES
from ..decoding.packed import PackedTexts
from ..naming.classes import Classes, classes_of
from ..naming.labels import LabelError, Labels
from ..naming.options import SourceOptions, without_options
from ..naming.patterns import find_files
from ..naming.split_names import Division, divide_files
from .tar_index import Member, opened, read_at, samples_of

__all__ = ["open_webdataset"]

_JSON_FIELD = "label"
_LABEL_BYTES = 2**20


@dataclass(eq=False)
class _Index:
    """Where the images of some tar files are."""

    files: tuple[str, ...]
    file: array[int] = field(default_factory=lambda: array("q"))
    starts: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    names: PackedTexts = field(default_factory=PackedTexts)

    def append(self, file: int, name: str, member: Member) -> None:
        self.file.append(file)
        self.starts.append(member.start)
        self.sizes.append(member.size)
        self.names.append(name)

    def name(self, row: int) -> str:
        return f"{as_text(self.files[self.file[row]])}/{as_text(self.names[row])}"

    def content(self, row: int) -> bytes:
        file = self.files[self.file[row]]
        # Opening takes little beside decoding, and what is not kept open is not shared by mistake.
        with opened(file) as descriptor:
            return read_at(file, descriptor, Member(self.starts[row], self.sizes[row]))


@dataclass(frozen=True, eq=False, kw_only=True)
class TarSource(EncodedSource):
    """Members of tar files, of which an index is in memory; implements `Source`.

    Attributes
    ----------
    index : _Index
        Of at least N images, the first of which are those of the source.
    """

    index: _Index

    def name(self, row: int) -> str:
        """Return the tar file and the member of image `row`."""
        return self.index.name(row)

    def content(self, row: int) -> bytes:
        """Return image `row` as it is stored."""
        return self.index.content(row)

    def stored_bytes(self, rows: Rows) -> int:
        """Return the bytes of some members."""
        return int(np.frombuffer(self.index.sizes, np.int64)[np.asarray(rows, np.intp)].sum())


def open_webdataset(spec: str, split: str, size: int | None) -> TarSource:
    """Open tar files of WebDataset: ``webdataset:FILE``, ``webdataset:FOLDER`` or ``webdataset:PATTERN``.

    A sample is an image beside its label: ``0001.jpg`` and ``0001.cls``, which holds an integer, or
    ``0001.json``, an object with the field ``label``, or ``0001.txt``, the name of the class. Others can be
    named, see `edgeprune.sources.naming.options`. The headers of all members are read once, images when they
    are asked for. Nothing else is opened, pickles least of all. Fields of the JSON member, and text members,
    become targets where they are named; then there need not be labels.

    Files of several splits are told apart by their names, or by those of their folders.

    Parameters
    ----------
    spec : str
        ``"webdataset:..."``, for example ``"webdataset:train-{000000..000015}.tar"``.
    split : str
        ``"train"`` or ``"test"``.
    size : int or None
        See `edgeprune.sources.decoding.scaling.resize_and_crop`; None takes the shape of the first image that
        can be read.

    Raises
    ------
    ConfigError
        A URL, braces without a partner, or an option that cannot be.
    SourceError
        Files that are missing, compressed, cut short or no tar files; samples without an image or label.
    """
    place, options = without_options(spec)
    pattern = place.partition(":")[2]
    if not pattern:
        raise ConfigError("webdataset needs tar files; write webdataset:FILE, FOLDER or PATTERN")
    found = find_files("webdataset", pattern, (".tar",))
    files = divide_files(found.files, found.base, split, kind="webdataset", must_divide=found.is_folder)
    reader = _Reader((*files.files, *files.training), options)
    own = reader.read(len(files.files))
    index, first = reader.index, as_text(files.files[0])
    is_own = np.arange(len(index.file)) < own
    targets = tuple(target.take(is_own) for target in reader.targets(first))
    classes = Classes(np.zeros(own, np.int64), (), ())
    if reader.has_labels or not are_enough(target.column.kind for target in targets):
        classes = classes_of(
            reader.finished_labels(first),
            Division(is_own, ~is_own if files.training else None, files.undivided),
            options,
            split=split,
            own_names=None,
            where=f"{first}: {reader.label}",
            row_name=index.name,
        )
    images = ((index.name(row), partial(index.content, row)) for row in range(own))
    shape, model = first_shape(size, images, first)
    return TarSource(
        spec=spec,
        split=split,
        class_names=classes.names,
        labels=classes.labels,
        shape=shape,
        size=size,
        model=model,
        undivided=files.undivided,
        notes=(*classes.notes, *reader.notes(first)),
        index=index,
        targets=targets,
    )


class _Reader:
    """Reads the index and the labels of tar files."""

    def __init__(self, files: tuple[str, ...], options: SourceOptions) -> None:
        self.index, self.labels, self._image = _Index(files), Labels(), options.image_column
        if self._image is not None:
            # As the endings of members are.
            self._image = self._image.lower()
        self.label = options.label_column or ""
        # Where targets are named, the first sample tells whether there are labels.
        self.has_labels, self._is_settled = True, options.label_column is not None
        self._requests = parse_targets(options.target)
        self._values: dict[str, list[object]] = {
            name: [] for request in self._requests for name in request.columns
        }
        self._keys: array[int] = array("q")
        self._passed: Counter[str] = Counter()

    def read(self, own: int) -> int:
        """Read all files; return the number of images in the first `own`."""
        images = 0
        for place, file in enumerate(self.index.files):
            before = len(self._keys)
            with opened(file) as descriptor:
                for key, members in samples_of(file):
                    self._add(place, key, members, descriptor)
            self._refuse_repeated(file, before)
            if place + 1 == own:
                images = len(self._keys)
        if not images:
            first = as_text(self.index.files[0])
            raise SourceError(f"{first}: has no images among its members ({self._kinds() or 'no endings'})")
        return images

    def _add(self, place: int, key: str, members: dict[str, Member], descriptor: int) -> None:
        sample = f"{as_text(self.index.files[place])}/{as_text(key)}"
        image = self._image_of(members, sample)
        if image is None:
            # Texts and JSON may speak of the whole file.
            if self.label in members and self.label not in ("txt", "json"):
                raise SourceError(
                    f"{sample}: has a label, but no image beside it; it has {_endings(members)}"
                )
            self._passed.update(members.keys())
            return
        file = self.index.files[place]
        self._add_values(file, members, descriptor, sample)
        self.label = self.label or _found_label(members)
        if not self._is_settled:
            self.has_labels = not self._requests or self._says_label(file, members, descriptor)
            self._is_settled = True
        if self.has_labels:
            try:
                self.labels.append(self._label_of(file, members, descriptor))
            except LabelError as error:
                raise SourceError(f"{sample}: its label {error}") from error
        self.index.append(place, f"{key}.{image}", members[image])
        self._keys.append(hash(key))
        self._passed.update(members.keys() - {image, "cls", "txt", "json"})

    def _image_of(self, members: dict[str, Member], sample: str) -> str | None:
        if self._image is not None:
            return self._image if self._image in members else None
        images = [ending for ending in members if f".{ending}".endswith(IMAGE_SUFFIXES)]
        if len(images) > 1:
            raise SourceError(
                f"{sample}: has several images, {' and '.join(images)}; name one with `image_column`, or add "
                f"?image-column={images[0]} to the source"
            )
        return images[0] if images else None

    def _label_of(self, file: str, members: dict[str, Member], descriptor: int) -> object:
        """Return what a sample says of its class."""
        ending = self.label if self.label in members else "json"
        member = members.get(ending)
        if member is None or not self.label:
            raise LabelError(f"is missing ({self.label or 'cls, json or txt'}); it has {_endings(members)}")
        if member.size > _LABEL_BYTES:
            raise LabelError(f"takes {member.size:,} bytes in {ending}; name another with `label_column`")
        content = read_at(file, descriptor, member)
        try:
            text = content.decode()
            if ending == "cls":
                return int(text)
            if ending != "json":
                return text
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise LabelError(f"cannot be read from {ending}: {error}") from error
        name = _JSON_FIELD if self.label == "json" else self.label
        if not isinstance(fields, dict) or name not in fields:
            has = ", ".join(map(str, fields)) if isinstance(fields, dict) else "no fields"
            raise LabelError(f"is missing: json has {has[:100]}, not {name}; name one with `label_column`")
        return fields[name]

    def _says_label(self, file: str, members: dict[str, Member], descriptor: int) -> bool:
        try:
            self._label_of(file, members, descriptor)
        except LabelError:
            return False
        return self.label not in self._values

    def _add_values(self, file: str, members: dict[str, Member], descriptor: int, sample: str) -> None:
        """Note what a sample says of the targets: fields of its JSON, or members of text."""
        if not self._values:
            return
        texts = {name: members[name] for name in ("json", *self._values) if name in members}
        large = [name for name, member in texts.items() if member.size > _LABEL_BYTES]
        if large:
            size = texts[large[0]].size
            raise SourceError(f"{sample}: {large[0]} takes {size:,} bytes, too many for a target")
        try:
            found = {name: read_at(file, descriptor, member).decode() for name, member in texts.items()}
            fields = json.loads(found.pop("json", "{}"))
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{sample}: its targets cannot be read: {error}") from error
        known = {**{name: text.strip() for name, text in found.items()}, **_fields(fields)}
        for name, values in self._values.items():
            if name not in known:
                has = ", ".join(map(str, known)) or "none"
                raise SourceError(f"{sample}: has no {name!r} for a target; it has {has[:100]}")
            values.append(known[name])

    def targets(self, where: str) -> list[Target]:
        """Return the targets of all images."""
        arrays = {name: _as_array(values) for name, values in self._values.items()}
        return [
            make_target(request, [arrays[name] for name in request.columns], where, self.index.name)
            for request in self._requests
        ]

    def _refuse_repeated(self, file: str, start: int) -> None:
        keys = np.frombuffer(self._keys, np.int64)[start:]
        if len(np.unique(keys)) < len(keys):
            _, first, count = np.unique(keys, return_index=True, return_counts=True)
            again = self.index.names[start + int(first[np.argmax(count)])]
            raise SourceError(
                f"{as_text(file)}: the sample of {as_text(again)} comes twice; a key must not repeat in a "
                "file, and the members of a sample lie together"
            )

    def finished_labels(self, where: str) -> Labels:
        """Return the labels of all images, integers where all are."""
        if not self.has_labels:
            raise SourceError(f"{where}: has no labels, and no target that can be learned")
        try:
            return self.labels.numbered()
        except LabelError as error:
            raise SourceError(f"{self.index.name(error.place)}: its label {error}") from error

    def notes(self, where: str) -> list[str]:
        """Return what a user should know of keys and members."""
        notes = []
        keys = np.frombuffer(self._keys, np.int64)
        repeated = len(keys) - len(np.unique(keys))
        if repeated:
            notes.append(f"{where}: {repeated:,} keys stand in several files; each is an image of its own")
        if self._passed:
            notes.append(f"{where}: members that are neither images nor labels are not read: {self._kinds()}")
        return notes

    def _kinds(self) -> str:
        kinds = sorted(self._passed.items(), key=lambda entry: (-entry[1], entry[0]))
        return ", ".join(f"{count:,} .{as_text(ending)}" for ending, count in kinds[:5])


def _fields(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _as_array(values: list[object]) -> NDArray[Any]:
    """Return values of JSON as a column: numbers where all are, otherwise objects."""
    if all(isinstance(value, bool | int | float) for value in values):
        numbers = np.array(values)
        if numbers.dtype != object:
            return numbers
    column = np.empty(len(values), object)
    column[:] = values
    return column


def _found_label(members: dict[str, Member]) -> str:
    return next((ending for ending in ("cls", "json", "txt") if ending in members), "")


def _endings(members: Iterable[str]) -> str:
    names: Sequence[str] = [as_text(ending) for ending in members]
    return ", ".join(names[:5])

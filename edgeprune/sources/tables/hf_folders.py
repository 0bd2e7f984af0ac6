"""The folders that Hugging Face ``datasets`` makes: which files of them belong to a split."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import SourceError
from ..decoding.files import as_text, sub_folders, visible
from ..naming.split_names import SPLITS, SplitFiles, chosen_group, split_word
from .arrow_rows import ARROW_ERRORS, read_json
from .arrow_tables import open_table

__all__ = ["REMEDY", "arrow_files", "no_data_set", "require_one_configuration"]

REMEDY = "save one with save_to_disk(FOLDER) of the package datasets, and name FOLDER"
_SAVED, _SAVED_DICT, _INFO = "state.json", "dataset_dict.json", "dataset_info.json"
_SHARD = re.compile(
    r"(?P<name>.+)-(?P<split>[^-]*[A-Za-z_][^-]*?)(?:-(?P<number>\d{5})-of-(?P<count>\d{5}))?\.arrow"
)
_LEVELS = 4


def arrow_files(folder: Path, split: str) -> tuple[SplitFiles | None, dict[str, Any]]:
    """Return the Arrow files of a split and what the data set says of itself; None where there are none."""
    if (folder / _SAVED_DICT).is_file():
        parts = _splits_of_dict(folder)
        own, training = _chosen(parts, split, folder)
        infos = [_info(folder / part) for part in own]
        files = tuple(file for part in own for file in _saved_files(folder / part))
        return SplitFiles(
            files, tuple(file for part in training for file in _saved_files(folder / part)), False
        ), infos[0]
    if (folder / _SAVED).is_file():
        return SplitFiles(_saved_files(folder), (), True), _info(folder)
    cached = _cached_files(folder)
    if not cached:
        return None, {}
    own, training = _chosen(list(cached), split, folder)
    info = _info(folder)
    for part in own:
        _require_whole(folder, part, cached[part], info)
    files = tuple(file for part in own for file in cached[part])
    return SplitFiles(files, tuple(file for part in training for file in cached[part]), False), info


def _splits_of_dict(folder: Path) -> list[str]:
    parts = read_json(folder / _SAVED_DICT).get("splits")
    if not isinstance(parts, list) or not all(isinstance(part, str) and os.sep not in part for part in parts):
        raise SourceError(f"{as_text(str(folder / _SAVED_DICT))}: is damaged; save the data set again")
    return parts


def _chosen(parts: Sequence[str], split: str, folder: Path) -> tuple[list[str], list[str]]:
    """Return the splits of a data set to read, and those of training where a test split is read."""
    words = {part: split_word(part) for part in parts}
    group = chosen_group(filter(None, words.values()), split)
    if group is None:
        shown = as_text(str(folder))
        has = ", ".join(parts) or "nothing"
        raise SourceError(
            f"{shown}: has {has}, but no {split} split; to take one as it is, save it by itself, or name its "
            f"folder if it has one: hf:{shown}/{parts[0] if parts else 'NAME'}"
        )
    own = [part for part in parts if words[part] in group]
    if len(own) > 1:
        raise SourceError(f"{as_text(str(folder))}: has {' and '.join(own)} for the {split} split; name one")
    training = [part for part in parts if words[part] in SPLITS["train"][0]] if split == "test" else []
    return own, training


def _saved_files(folder: Path) -> tuple[str, ...]:
    """Return the files that ``save_to_disk`` lists."""
    state = read_json(folder / _SAVED)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise SourceError(f"{as_text(str(folder))}: was saved by an old release of datasets; save it again")
    entries = state.get("_data_files")
    if entries == []:
        raise SourceError(f"{as_text(str(folder))}: holds no rows")
    names = [entry.get("filename") for entry in entries or () if isinstance(entry, dict)]
    if not names or not all(isinstance(name, str) and os.sep not in name for name in names):
        raise SourceError(f"{as_text(str(folder / _SAVED))}: lists no files; save the data set again")
    return tuple(str(folder / str(name)) for name in names)


def _cached_files(folder: Path) -> dict[str, list[str]]:
    """Return the files of each split in a folder of the cache of ``load_dataset``."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for entry in visible(str(folder)):
        match = _SHARD.fullmatch(entry.name)
        # What map() and the like left lies beside them.
        if match is not None and match["name"] != "cache" and entry.is_file():
            found[match["split"]].append(entry.path)
    return dict(found)


def _require_whole(folder: Path, part: str, files: Sequence[str], info: Mapping[str, Any]) -> None:
    """Raise `SourceError` where files of a split are missing, by their names or by the number of rows."""
    counts = {int(match["count"]) for file in files if (match := _SHARD.search(file)) and match["count"]}
    try:
        rows = info["splits"][part]["num_examples"]
    except (KeyError, TypeError):
        rows = None
    wanted = counts.pop() if len(counts) == 1 else len(files)
    if len(files) != wanted or counts:
        raise SourceError(
            f"{as_text(str(folder))}: has {len(files)} of {wanted} files of {part}; make it again"
        )
    held = sum(_rows_of(file) for file in files)
    if isinstance(rows, int) and rows != held:
        raise SourceError(f"{as_text(str(folder))}: has {held:,} of {rows:,} rows of {part}; make it again")


def _info(folder: Path) -> dict[str, Any]:
    return read_json(folder / _INFO) if (folder / _INFO).is_file() else {}


def require_one_configuration(files: Sequence[str], folder: Path) -> None:
    """Raise `SourceError` where Parquet files lie in folders that are no splits."""
    parents = {os.path.relpath(os.path.dirname(file), folder) for file in files}  # noqa: PTH120
    parts = {tuple(part for part in Path(parent).parts if split_word(part) is None) for parent in parents}
    if len(parts) > 1:
        names = sorted(as_text("/".join(part) or ".") for part in parts)
        shown = as_text(str(folder))
        raise SourceError(
            f"{shown}: holds several data sets: {', '.join(names[:5])}; name one: hf:{shown}/{names[-1]}"
        )


def no_data_set(folder: Path) -> str:
    """Return what is wrong with a folder without tables, and which folders below it may be meant."""
    shown, found, level = as_text(str(folder)), [], [folder]
    for _ in range(_LEVELS):
        level = [parent / name for parent in level for name in sub_folders(str(parent))][:1000]
        found += [
            one for one in level if any((one / name).is_file() for name in (_SAVED, _SAVED_DICT, _INFO))
        ]
        if found:
            names = ", ".join(f"hf:{as_text(str(one))}" for one in found[:3])
            return f"{shown}: is no data set of Hugging Face; those below it are {names}; name one"
    return f"{shown}: is no data set of Hugging Face (no {_SAVED}, {_SAVED_DICT}, Arrow or Parquet); {REMEDY}"


def _rows_of(file: str) -> int:
    try:
        return len(open_table(file))
    except ARROW_ERRORS as error:
        raise SourceError(f"{as_text(file)}: is damaged or cut off: {error}") from error

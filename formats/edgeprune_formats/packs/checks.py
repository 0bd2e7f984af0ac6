"""What a writer is given is checked before anything is written, so that its reader accepts what it writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..header import FORMAT_VERSION, TEXTS, PackHeader
from ..limits import MAX_PROVENANCE_BYTES, MAX_TEXT_BYTES
from ..strict_json import check_json
from .header_checks import header_problems

__all__ = ["check_header", "check_rows", "check_scores", "provenance_text"]


def check_header(header: PackHeader) -> None:
    """Raise `ConfigError` for a header that a reader would refuse or that would not come back the same."""
    for problem in header_problems(header):
        raise ConfigError(str(problem))
    if header.format_version != FORMAT_VERSION:
        raise ConfigError(f"format_version {header.format_version!r} is not {FORMAT_VERSION!r}")
    for name in TEXTS:
        _check_text(name, getattr(header, name))
    for class_name in header.class_names:
        _check_text("class_names", class_name)
    provenance_text(header, {})


def _check_text(name: str, value: str) -> None:
    try:
        raw = value.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{name} {value!r}: {error.reason}") from error
    # HDF5 pads with zero bytes, so one at the end would be lost.
    if b"\0" in raw or len(raw) > MAX_TEXT_BYTES:
        raise ConfigError(f"{name} of {len(raw)} B must be {MAX_TEXT_BYTES} B at most, without zero bytes")


def check_rows(
    name: str, values: NDArray[np.integer[Any]], samples: int, end: int
) -> NDArray[np.integer[Any]]:
    """Return `values` as an array; raise `ConfigError` unless it is int [samples] within ``0 .. end - 1``."""
    array = np.asarray(values)
    if array.shape != (samples,) or array.dtype.kind not in "iu":
        raise ConfigError(f"{name} {array.dtype} {array.shape} must be int [{samples}]")
    if int(array.min()) < 0 or int(array.max()) >= end:
        raise ConfigError(f"{name} must be 0..{end - 1}")
    return array


def check_scores(scores: NDArray[Any], samples: int) -> NDArray[np.float32]:
    """Return a copy as float32; raise `ConfigError` unless it is real, [samples] and finite as float32."""
    array = np.asarray(scores)
    if array.shape != (samples,) or array.dtype.kind not in "iuf":
        raise ConfigError(f"scores {array.dtype} {array.shape} must be real numbers [{samples}]")
    with np.errstate(all="ignore"):
        single = array.astype("<f4")
    bad = np.nonzero(~np.isfinite(single))[0]
    if len(bad):
        raise ConfigError(f"scores: {len(bad)} not finite as float32, first {array[bad[0]]} at {bad[0]}")
    return single


def provenance_text(header: PackHeader, result: Mapping[str, Any]) -> bytes:
    """Return the provenance with its result as JSON; raise `ConfigError` if it is not JSON or too long."""
    provenance = {**header.provenance, **({"result": dict(result)} if result else {})}
    try:
        text = json.dumps(provenance, ensure_ascii=False, sort_keys=True, allow_nan=False).encode()
        check_json(provenance)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"provenance does not go into JSON: {error}") from error
    if len(text) > MAX_PROVENANCE_BYTES:
        raise ConfigError(f"provenance of {len(text)} B exceeds {MAX_PROVENANCE_BYTES} B")
    return text

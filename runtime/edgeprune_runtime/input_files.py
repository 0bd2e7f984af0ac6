"""Files of weights and models that users name: what is wrong with one, before anything loads it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CONFIG_FILE", "METRICS_FILE", "MODEL_FILE", "damage_remedy", "input_problem", "is_pickle"]

MODEL_FILE = "model.safetensors"
"""The file of a run's folder that holds its trained network."""
METRICS_FILE = "metrics.jsonl"
"""The one that has a line for each epoch."""
CONFIG_FILE = "config.json"
"""The one that describes the run."""

_PICKLE = (
    "a pickle of torch.save, which could run code and is not opened; make a safetensors file of it: "
    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW)"
)
_BEGINNINGS = {
    b"version https://git-lfs": "a pointer of Git LFS in place of the file; fetch it: git lfs pull",
    b"PK\x03\x04": _PICKLE,
    **{b"\x80" + bytes([version]): _PICKLE for version in range(2, 6)},
    b"\x89HDF\r\n\x1a\n": "HDF5, such as a pack or scores are; name a file of weights or a model",
    b"<": "a web page or XML; download the file itself",
}
# Bytes 0 to 7 of a safetensors file are the length of the JSON that follows, and may be anything.
_JSON_AT = 8


def input_problem(path: Path) -> str | None:
    """Return what a file is that cannot hold weights or a model, and the remedy; None where it may.

    Waits for nothing: a named pipe is not opened.
    """
    try:
        if path.is_dir():
            return "not a regular file, but a folder; name a file in it"
        if path.exists() and not path.is_file():
            return "not a regular file, but a pipe or device; copy what it gives into a file, and name that"
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        return f"cannot be read ({error.strerror}); name another file, or give it again"
    if not head:
        return f"empty; {damage_remedy(path, 'copy it again')}"
    if head[_JSON_AT : _JSON_AT + 1] == b"{":
        return None
    return next((what for begins, what in _BEGINNINGS.items() if head.startswith(begins)), None)


def damage_remedy(path: Path, otherwise: str) -> str:
    """Return what to do about a damaged result: that of a run is made again, if there is a checkpoint."""
    if path.name in (MODEL_FILE, METRICS_FILE) and any(path.parent.glob("checkpoint-*.json")):
        return "train with `resume=True` to make it again from the checkpoint beside it"
    return otherwise


def is_pickle(path: Path) -> bool:
    """Tell whether a file is one of torch.save, by how it begins."""
    return input_problem(path) == _PICKLE

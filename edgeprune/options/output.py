"""What a command may write over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeprune_formats import ConfigError
from edgeprune_runtime.input_files import CONFIG_FILE, METRICS_FILE, MODEL_FILE

__all__ = ["file_of", "require_other", "require_spare"]

_OF_A_RUN = MODEL_FILE, METRICS_FILE, CONFIG_FILE, "checkpoint-[0-9]*", "best-[0-9]*.safetensors"


def require_spare(output: Path, force: bool = False, inputs: Mapping[str, Path | None] | None = None) -> None:
    """Raise `ConfigError` where writing `output` would replace what is not to be replaced.

    Parameters
    ----------
    output : Path
        The file to write. A folder in its place is for the writer to refuse.
    force : bool
        Whether a file that exists may be replaced.
    inputs : mapping of str to Path or None
        What the command reads, by what it is called; never replaced.
    """
    if not output.exists() or output.is_dir():
        return
    if not force:
        raise ConfigError(f"{output} exists; pass --force to replace it")
    require_other(output, inputs or {})


def require_other(output: Path, inputs: Mapping[str, Path | None]) -> None:
    """Raise `ConfigError` where `output` is one of the files that a command reads, by what each is called.

    Of a folder that is read, these are the files of a run: network, metrics, description, checkpoints.
    """
    for name, path in inputs.items():
        if path is None or not output.exists():
            continue
        for file in (path, *(own for pattern in _OF_A_RUN for own in path.glob(pattern))):
            if file.exists() and output.samefile(file):
                raise ConfigError(f"{output} is the {name}; name another file")


def file_of(data: object) -> Path | None:
    """Return the file or folder that a pack or a source lies in; None where nothing was named."""
    if data is None or isinstance(data, Path):
        return data
    # A source may have options behind a question mark, which a pack's name may hold as well.
    kind, colon, rest = str(data).partition(":")
    whole, named = Path(rest if colon else kind), Path((rest if colon else kind).partition("?")[0])
    return whole if whole.exists() else named

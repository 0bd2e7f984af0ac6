"""Pictures in files: what `edgeprune_runtime` measures, drawn by Matplotlib."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune_formats import ConfigError
from edgeprune_formats.files import atomic_file

from .text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["label", "picture", "require_kind", "require_matplotlib"]

_KINDS = (".png", ".svg", ".pdf")
# The same picture from the same numbers.
_STYLE: Any = {"svg.hashsalt": "edgeprune", "font.size": 9}
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def require_matplotlib(what: str) -> None:
    """Raise `ConfigError` where Matplotlib is not installed, which `what` needs."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(f"{what} needs Matplotlib; pip install 'edgeprune[watch]'")


def require_kind(path: Path) -> str:
    """Return what a picture's name ends in, or raise `ConfigError`."""
    kind = path.suffix.lower()
    if kind not in _KINDS:
        raise ConfigError(f"{path}: a picture's name ends in {', '.join(_KINDS)}")
    return kind


@contextlib.contextmanager
def picture(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """Give a figure of so many inches to draw in; then the file appears, whole or not at all.

    Raises
    ------
    ConfigError
        The name does not end in .png, .svg or .pdf.
    PackWriteError
        It cannot be written.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    kind = require_kind(path)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        with atomic_file(path) as partial:
            figure.savefig(partial, format=kind[1:], dpi=150, metadata=_METADATA[kind])


def label(name: str) -> str:
    """Return a name in characters that the font has, the others as their escapes."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    text = "".join(c if ord(c) in known else ascii(c)[1:-1] for c in printable(name))
    # A label that begins with an underscore is left out of the legend.
    return f" {text}" if text.startswith("_") else text

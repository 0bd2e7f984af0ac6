"""EdgePrune: put a training set on a small device, train there, and know what it costs.

This package is the workstation's side, which builds packs, and the command line. A device needs only
`edgeprune_runtime`. Each name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeprune_formats import EdgePruneError, PackFormatError, __version__

if TYPE_CHECKING:
    from .coresets.config import CoresetConfig
    from .masks.config import MaskConfig
    from .packs.addition import Addition, add_images
    from .packs.build import build_pack
    from .packs.config import BuildConfig
    from .packs.writing.report import BuildReport
    from .scoring.config import ScoreConfig
    from .sources import Source, open_source

__all__ = [
    "Addition",
    "BuildConfig",
    "BuildReport",
    "CoresetConfig",
    "EdgePruneError",
    "MaskConfig",
    "PackFormatError",
    "ScoreConfig",
    "Source",
    "__version__",
    "add_images",
    "build_pack",
    "open_source",
]

_HOMES = {
    "Addition": "packs.addition",
    "BuildConfig": "packs.config",
    "BuildReport": "packs.writing.report",
    "CoresetConfig": "coresets.config",
    "MaskConfig": "masks.config",
    "ScoreConfig": "scoring.config",
    "Source": "sources",
    "add_images": "packs.addition",
    "build_pack": "packs.build",
    "open_source": "sources",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

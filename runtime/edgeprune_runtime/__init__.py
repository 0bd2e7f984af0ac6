"""What a device needs: decode a pack to training batches, train, resume.

Importing it loads neither torch nor scipy; each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeprune_formats import __version__

if TYPE_CHECKING:
    from .dataset import PackDataset
    from .loader import PackLoader
    from .mixture import Mixture, open_packs

__all__ = ["Mixture", "PackDataset", "PackLoader", "__version__", "open_packs"]

_HOMES = {
    "Mixture": "mixture",
    "PackDataset": "dataset",
    "PackLoader": "loader",
    "open_packs": "mixture",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What a device needs: decode a pack to training batches, train, resume.

Importing it loads neither torch nor scipy; each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeprune_formats import __version__

if TYPE_CHECKING:
    from .loading.dataset import PackDataset
    from .loading.loader import PackLoader
    from .loading.mixture import Mixture, open_packs
    from .loading.order.replay import Replay

__all__ = ["Mixture", "PackDataset", "PackLoader", "Replay", "__version__", "open_packs"]

_HOMES = {
    "Mixture": "loading.mixture",
    "PackDataset": "loading.dataset",
    "PackLoader": "loading.loader",
    "Replay": "loading.order.replay",
    "open_packs": "loading.mixture",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

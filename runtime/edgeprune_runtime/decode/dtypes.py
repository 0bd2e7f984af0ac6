"""What images may be decoded to, and where, said without torch."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeprune_formats import ConfigError

if TYPE_CHECKING:
    import torch

    Dtype = Literal["float16", "bfloat16", "float32", "float64"] | np.dtype[Any] | type[Any] | torch.dtype
    Device = str | torch.device

__all__ = ["dtype_name", "require_dtype"]


def dtype_name(dtype: Dtype) -> str:
    """Return the name of a dtype that may be a name, numpy's or torch's, such as ``"float32"``."""
    return np.dtype(dtype).name if isinstance(dtype, type) else str(dtype).removeprefix("torch.")


def require_dtype(dtype: Dtype, backend: str, known: Collection[str]) -> str:
    """Return the name of a dtype that a backend gives.

    Raises
    ------
    ConfigError
        The backend does not give it.
    """
    name = dtype_name(dtype)
    if name not in known:
        raise ConfigError(f"backend {backend!r} gives {', '.join(known)}, not {name}")
    return name

"""Choosing a decoding backend; torch is imported only where it is chosen."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal, get_args

from edgeprune_formats import ConfigError

from .plan import DecodePlan, Decoder

if TYPE_CHECKING:
    from .dtypes import Device, Dtype

__all__ = ["BACKENDS", "Backend", "make_decoder"]

Backend = Literal["auto", "torch", "scipy", "native"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


def make_decoder(backend: Backend, plan: DecodePlan, *, device: Device, dtype: Dtype) -> Decoder:
    """Return the decoder of a backend; ``"auto"`` is the first that can of torch, native and scipy.

    On the CPU, torch decodes with the compiled kernel where that is built and meant for the pack.

    Raises
    ------
    ConfigError
        Unknown backend, torch asked for but not installed, or a device or dtype that the backend lacks.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"unknown backend {backend!r}; known: {', '.join(BACKENDS)}")
    has_torch = importlib.util.find_spec("torch") is not None
    if backend == "torch" and not has_torch:
        raise ConfigError("backend 'torch' needs torch; pip install 'edgeprune[torch]', or use 'scipy'")
    if backend == "native" or (backend == "auto" and not has_torch):
        from .native import NativeDecoder, native_kernel

        if backend == "native" or native_kernel(plan) is not None:
            return NativeDecoder(plan, device=device, dtype=dtype)
    if backend == "scipy" or not has_torch:
        from .scipy_backend import ScipyDecoder

        return ScipyDecoder(plan, device=device, dtype=dtype)
    from .torch_backend import TorchDecoder

    return TorchDecoder(plan, device=device, dtype=dtype)

"""Networks beyond the short names: torchvision's, timm's, and those that a function of the user's builds."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Collection
from typing import Any

import torchvision
from torch import nn

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import one_line

from .code import code_of, fitting_arguments
from .layers import take_channels
from .names import is_code, name_problem

__all__ = ["builder_of"]

Build = Callable[[int, int, int], Any]


def builder_of(name: str) -> Build:
    """Return what builds a network of ``(num_classes, image_size, channels)``, with fresh weights.

    Nothing is downloaded.

    Raises
    ------
    ConfigError
        There is no such network, its library is not installed, or the user has not named its code.
    """
    problem = name_problem(name)
    if problem is not None:
        raise ConfigError(problem)
    family, _, own = name.partition(":")
    build = _code(name) if is_code(name) else _LIBRARIES[family](own)

    def checked(num_classes: int, image_size: int, channels: int) -> nn.Module:
        try:
            model = build(num_classes, image_size, channels)
        except Exception as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise ConfigError(f'`model="{name}"`: building it raised {reason}') from error
        if not isinstance(model, nn.Module):
            raise ConfigError(f'`model="{name}"`: gives {type(model).__name__}, not a torch.nn.Module')
        return model

    return checked


def _code(name: str) -> Build:
    function = code_of(name)

    def build(num_classes: int, image_size: int, channels: int) -> Any:
        offered = {"num_classes": num_classes, "channels": channels, "image_size": image_size}
        given = fitting_arguments(function, **offered)
        model = function(**given)
        if isinstance(model, nn.Module) and "channels" not in given:
            take_channels(model, channels)
        return model

    return build


def _torchvision(name: str) -> Build:
    models = torchvision.models
    _require_known(name, models.list_models(module=models), "torchvision")

    def build(num_classes: int, image_size: int, channels: int) -> Any:
        more: dict[str, Any] = {}
        if name in ("googlenet", "inception_v3"):
            # With auxiliary classifiers they give a tuple in training.
            more = {"aux_logits": False, "init_weights": True}
        elif name.startswith("vit_"):
            more = {"image_size": image_size}
        elif name.startswith("maxvit"):
            more = {"input_size": (image_size, image_size)}
        model = models.get_model(name, weights=None, num_classes=num_classes, **more)
        take_channels(model, channels)
        return model

    return build


def _timm(name: str) -> Build:
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError as error:
        raise ConfigError(f"timm:{name} needs timm; pip install 'edgeprune[timm]'") from error
    # Names such as hf-hub:... would download, and are none of these.
    if not timm.is_model(name):
        _require_known(name, timm.list_models(), "timm")

    def build(num_classes: int, image_size: int, channels: int) -> Any:
        settings = timm.get_pretrained_cfg(name)
        size = {"img_size": image_size} if settings is not None and settings.fixed_input_size else {}
        given = {"pretrained": False, "num_classes": num_classes, "in_chans": channels}
        return timm.create_model(name, **given, **size)

    return build


def _require_known(name: str, names: Collection[str], library: str) -> None:
    if name not in names:
        close = difflib.get_close_matches(name, names, 3)
        hint = f"choose one such as {', '.join(close)}" if close else f"{library}'s list_models() lists them"
        raise ConfigError(f"{library} has no network {name!r} that classifies images; {hint}")


_LIBRARIES: dict[str, Callable[[str], Build]] = {"torchvision": _torchvision, "timm": _timm}

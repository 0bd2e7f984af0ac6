"""The names of the networks, for those who must know them without loading torch."""

from __future__ import annotations

import re
from typing import Literal, get_args

from ..checks import shortened

__all__ = ["FAMILIES", "MODEL_NAMES", "ONE_STEM", "STEMS", "Stem", "is_code", "name_problem"]

MODEL_NAMES = (
    "shufflenet_v2",
    "mobilenet_v2",
    "efficientnet_b0",
    "resnet18",
    "resnet34",
    "resnet8",
    "resnet20",
    "resnet9",
)
"""The short names that `edgeprune_runtime.networks.models.create_model` takes."""

ONE_STEM = ("resnet8", "resnet20", "resnet9")
"""Those of them that begin in one way only."""

FAMILIES = ("torchvision", "timm")
"""The libraries whose networks are named ``FAMILY:NAME``."""

Stem = Literal["auto", "imagenet", "small"]
STEMS: tuple[Stem, ...] = get_args(Stem)
"""How the networks of `MODEL_NAMES` begin: with torchvision's strides, or without the first two."""

_CODE = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[\w.<>]+")


def is_code(name: str) -> bool:
    """Tell whether a name is ``package.module:function``: code of the user's that builds the network."""
    return name.partition(":")[0] not in FAMILIES and _CODE.fullmatch(name) is not None


def name_problem(name: str) -> str | None:
    """Return why a name is no network's, as far as its form tells; None where it may be one."""
    family, colon, rest = name.partition(":")
    if name in MODEL_NAMES or is_code(name) or (colon and family in FAMILIES and rest):
        return None
    kinds = "torchvision:NAME, timm:NAME or package.module:function"
    return f"unknown model {shortened(name)}; choose one of {', '.join(MODEL_NAMES)}, or {kinds}"

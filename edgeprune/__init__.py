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
    from .inference.confusion import ClassEvaluation
    from .inference.evaluation import evaluate
    from .inference.export import ExportConfig, ExportReport, export_run
    from .inference.multilabel import MultilabelEvaluation
    from .inference.prediction import Prediction, predict
    from .inference.predictors import Predictor, open_predictor
    from .inference.values import ValueEvaluation
    from .masks.config import MaskConfig
    from .packs.addition import Addition, add_images
    from .packs.build import build_pack
    from .packs.config import BuildConfig
    from .packs.writing.report import BuildReport
    from .repack.convert import convert_pack
    from .repack.merge import MergeReport, merge_packs
    from .repack.repair import RepairReport, repair_pack
    from .repack.split import Part, split_pack
    from .scoring.config import ScoreConfig
    from .sources import Source, open_source

__all__ = [
    "Addition",
    "BuildConfig",
    "BuildReport",
    "ClassEvaluation",
    "CoresetConfig",
    "EdgePruneError",
    "ExportConfig",
    "ExportReport",
    "MaskConfig",
    "MergeReport",
    "MultilabelEvaluation",
    "PackFormatError",
    "Part",
    "Prediction",
    "Predictor",
    "RepairReport",
    "ScoreConfig",
    "Source",
    "ValueEvaluation",
    "__version__",
    "add_images",
    "build_pack",
    "convert_pack",
    "evaluate",
    "export_run",
    "merge_packs",
    "open_predictor",
    "open_source",
    "predict",
    "repair_pack",
    "split_pack",
]

_HOMES = {
    "Addition": "packs.addition",
    "BuildConfig": "packs.config",
    "BuildReport": "packs.writing.report",
    "ClassEvaluation": "inference.confusion",
    "CoresetConfig": "coresets.config",
    "ExportConfig": "inference.export",
    "ExportReport": "inference.export",
    "MaskConfig": "masks.config",
    "MergeReport": "repack.merge",
    "MultilabelEvaluation": "inference.multilabel",
    "Part": "repack.split",
    "Prediction": "inference.prediction",
    "Predictor": "inference.predictors",
    "RepairReport": "repack.repair",
    "ScoreConfig": "scoring.config",
    "Source": "sources",
    "ValueEvaluation": "inference.values",
    "add_images": "packs.addition",
    "build_pack": "packs.build",
    "convert_pack": "repack.convert",
    "evaluate": "inference.evaluation",
    "export_run": "inference.export",
    "merge_packs": "repack.merge",
    "open_predictor": "inference.predictors",
    "open_source": "sources",
    "predict": "inference.prediction",
    "repair_pack": "repack.repair",
    "split_pack": "repack.split",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

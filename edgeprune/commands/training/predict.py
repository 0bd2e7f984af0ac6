"""``edgeprune predict``: classify images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.text import say
from edgeprune_formats.remote.locations import is_url
from edgeprune_runtime.training.settings import TrainConfig

from ...options.fields import PackFile, config_options
from ...options.networks import TRUST_MODEL, TTA
from ...options.parameters import own_flags

if TYPE_CHECKING:
    from edgeprune.inference.prediction import Prediction
    from edgeprune.inference.predictors import Tta
    from edgeprune_formats.remote.locations import RemoteFile

__all__ = ["LABELED", "command", "tell"]


class _Images(PackFile):
    """A path that exists, the URL of a far pack, or a source such as csv:FILE."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value)
        is_source = (":" in text or text == "digits") and not is_url(text) and not Path(text).exists()
        return text if is_source else super().convert(value, param, ctx)


LABELED = _Images(far=True, dir_okay=True)


@click.command("predict")
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.argument("images", type=LABELED, nargs=-1, required=True)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Number of most likely classes to print. Of several labels, all that are told are printed.",
)
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, and count them.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each image.")
@TTA
@config_options(TrainConfig, "device")
@TRUST_MODEL
def command(
    model: Path,
    images: tuple[Path | str | RemoteFile, ...],
    top: int,
    skip_bad: bool,
    as_json: bool,
    tta: Tta,
    device: str,
) -> None:
    """Predict the classes or values of IMAGES with the network MODEL.

    MODEL is an .onnx file or the folder of a run, finished or not. IMAGES are files, folders of files, packs
    or their URLs, or sources as in edgeprune build; of a source, the test split is read. Files are scaled
    and cropped as in `edgeprune build --size`. If an image can have several labels, those with a probability
    of 50% or more are printed, or else the most likely one. Images that cannot be read are named at the end.

    \b
    Example:
      edgeprune predict photos.onnx cat.jpg
      edgeprune predict photos.onnx holiday --json
    """
    from edgeprune.inference.multilabel import LABEL_THRESHOLD
    from edgeprune.inference.prediction import predict
    from edgeprune.inference.predictors import open_predictor

    predictor = open_predictor(model, tell, device=device, tta=tta)
    kind, target, unit = predictor.task.kind, predictor.task.target, predictor.task.unit
    for prediction in predict(predictor, images, skip_bad=skip_bad, tell=tell):
        if kind == "value":
            numbers = prediction.probabilities.tolist()
            record = {"image": prediction.image, "target": target, "value": numbers}
            record |= {"unit": unit} if unit else {}
            text = ", ".join(f"{number:.6g}" for number in numbers)
            say(json.dumps(record) if as_json else f"{prediction.image}: {target} {text} {unit}".rstrip())
            continue
        shown = top
        if kind == "multilabel":
            # Labels that are there, or else the likeliest one; as JSON at least `top` of them.
            there = int((prediction.probabilities >= LABEL_THRESHOLD).sum())
            shown = max(there, top if as_json else 1)
        best = _best(prediction, predictor.class_names, shown)
        say(json.dumps(_record(prediction, best)) if as_json else _line(prediction, best))


def tell(line: str) -> None:
    """Print what is beside the result."""
    say(f"edgeprune: {own_flags(line)}", err=True)


def _best(prediction: Prediction, names: Sequence[str] | None, top: int) -> list[tuple[str, float]]:
    """Return the likeliest classes with their probabilities, the likeliest first."""
    order = (-prediction.probabilities).argsort(kind="stable")[:top]
    return [
        (f"class {label}" if names is None else names[label], float(prediction.probabilities[label]))
        for label in order.tolist()
    ]


def _line(prediction: Prediction, best: list[tuple[str, float]]) -> str:
    classes = ", ".join(f"{name} {probability:.1%}" for name, probability in best)
    return f"{prediction.image}: {classes}"


def _record(prediction: Prediction, best: list[tuple[str, float]]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "image": prediction.image,
        "top": [{"class": name, "probability": probability} for name, probability in best],
    }
    return record if prediction.label is None else record | {"label": prediction.label}

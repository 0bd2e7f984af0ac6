"""``edgeprune evaluate``: how well a network tells what it has learned of labeled images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.text import count_text, printable, say
from edgeprune_runtime.training.settings import TrainConfig

from ...options.fields import config_options
from ...options.networks import TRUST_MODEL
from ...options.output import file_of, require_other
from .predict import LABELED, tell

if TYPE_CHECKING:
    from edgeprune.inference.confusion import ClassEvaluation, ClassScores
    from edgeprune.inference.evaluation import Evaluation
    from edgeprune.inference.several_labels import LabelsEvaluation
    from edgeprune.inference.values import ValueEvaluation
    from edgeprune_formats.remote.locations import RemoteFile

__all__ = ["command"]

FILE = click.Path(dir_okay=False, path_type=Path)
# With more classes the table is of the worst, and the matrix a list of pairs.
_MANY, _LISTED = 20, 10
_NAME_WIDTH = 24


@click.command("evaluate")
@click.argument("model", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@click.argument("data", metavar="SOURCE_OR_PACK", type=LABELED)
@TRUST_MODEL
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, and count them.")
@click.option(
    "--tta",
    type=click.Choice(["none", "flip"]),
    default="none",
    show_default=True,
    help="Test-time augmentation: flip averages an image and its mirror image, in twice the time.",
)
@config_options(TrainConfig, "device")
@click.option("--json", "as_json", type=FILE, metavar="FILE", help="Also write all figures as JSON.")
@click.option("--plot", type=FILE, metavar="FILE", help="Draw what was found, as .png, .svg or .pdf.")
def command(
    model: Path,
    data: Path | str | RemoteFile,
    skip_bad: bool,
    tta: str,
    device: str,
    as_json: Path | None,
    plot: Path | None,
) -> None:
    """Measure how well RUN tells what it has learned of the images of SOURCE_OR_PACK.

    RUN is the folder of a run, finished or not, or an .onnx file. Of a source, the test split is read. Of a
    network that classifies, the output is recall, precision and F1 of each class, and the confusion matrix.
    With more than 20 classes, it shows the worst classes, and the pairs that are confused most often. Of a
    network that tells several labels, it is the average precision of each; of one that tells values, their
    errors.

    \b
    Example:
      edgeprune evaluate run imagefolder:photos
      edgeprune evaluate photos.onnx test.h5 --json test.json --plot confusion.png
    """
    from edgeprune.inference.evaluation import evaluate
    from edgeprune.inference.mirrored import Mirrored
    from edgeprune.inference.predictors import open_predictor
    from edgeprune.pictures import require_kind, require_matplotlib
    from edgeprune_formats.files import atomic_file, check_writable

    if plot is not None:
        require_matplotlib("`plot`")
        require_kind(plot)
    for path in filter(None, (as_json, plot)):
        require_other(path, {"network": model, "images": file_of(data)})
        check_writable(path)
    predictor = open_predictor(model, tell, device=device)
    if tta == "flip":
        predictor = Mirrored(predictor)
    found = evaluate(predictor, data, skip_bad=skip_bad, tell=tell)
    if as_json is not None:
        record = {"model": str(model), "data": str(data), "tta": tta, **found.record()}
        with atomic_file(as_json) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n")
    if plot is not None:
        from edgeprune.inference.evaluation_pictures import draw

        draw(found, plot)
    for line in _lines(found, "" if tta == "none" else " and mirrored"):
        say(line)


def _lines(found: Evaluation, how: str) -> Iterator[str]:
    from edgeprune.inference.confusion import ClassEvaluation
    from edgeprune.inference.several_labels import LabelsEvaluation

    tried = f"{count_text(found.images, 'image')}{how}"
    if isinstance(found, ClassEvaluation):
        yield from _of_classes(found, tried)
    elif isinstance(found, LabelsEvaluation):
        yield from _of_labels(found, tried)
    else:
        yield from _of_values(found, tried)


def _of_classes(found: ClassEvaluation, tried: str) -> Iterator[str]:
    yield (
        f"{tried}: accuracy {found.accuracy:.2%}, mean recall of the classes {found.mean_recall:.2%}, "
        f"cross entropy {found.loss / found.images:.4f}"
    )
    classes = found.classes()
    if len(classes) > _MANY:
        seen = [one for one in classes if one.recall is not None]
        worst = sorted(seen, key=lambda one: one.recall or 0.0)[:_LISTED]
        yield from ("", f"the {len(worst)} classes of least recall, of {len(classes):,}")
        yield from _table(worst)
        yield from _pairs(found, classes)
    else:
        yield ""
        yield from _table(classes)
        yield from ("", "images by true class (rows) and predicted class (columns)")
        yield from _matrix(found)


def _table(classes: list[ClassScores]) -> Iterator[str]:
    width = max(len("class"), *(len(_name(one.name)) for one in classes))
    yield f"{'class':{width}}  {'images':>9}  {'recall':>7}  {'precision':>9}  {'F1':>7}"
    for one in classes:
        scores = f"{_share(one.recall):>7}  {_share(one.precision):>9}  {_share(one.f1):>7}"
        yield f"{_name(one.name):{width}}  {one.images:>9,}  {scores}"


def _of_labels(found: LabelsEvaluation, tried: str) -> Iterator[str]:
    record, labels = found.record(), found.labels()
    yield (
        f"{tried}: mean average precision {_share(record['map'])}, mean F1 of the labels "
        f"{_share(record['mean_f1'])}, all labels right {_share(record['exact'])}, cross entropy "
        f"{record['cross_entropy']:.4f}"
    )
    yield ""
    if len(labels) > _MANY:
        seen = [one for one in labels if one.average_precision is not None]
        labels = sorted(seen, key=lambda one: one.average_precision or 0.0)[:_LISTED]
        yield f"the {len(labels)} labels of least average precision, of {len(found.names):,}"
    width = max(len("label"), *(len(_name(one.name)) for one in labels)) if labels else len("label")
    yield f"{'label':{width}}  {'images':>9}  {'AP':>7}  {'recall':>7}  {'precision':>9}  {'F1':>7}"
    for one in labels:
        scores = f"{_share(one.recall):>7}  {_share(one.precision):>9}  {_share(one.f1):>7}"
        yield f"{_name(one.name):{width}}  {one.images:>9,}  {_share(one.average_precision):>7}  {scores}"


def _of_values(found: ValueEvaluation, tried: str) -> Iterator[str]:
    values, task = found.values(), found.task
    unit = f" {task.unit}" if task.unit else ""
    if len(values) == 1:
        (one,) = values
        yield (
            f"{tried}: {task.target}: mean absolute error {one.mae:.4g}{unit}, root mean square error "
            f"{one.rmse:.4g}{unit}, R2 {_r2(one.r2)}"
        )
        yield f"mean error {one.mean_error:+.4g}{unit}; 95% of the errors are at most {one.p95:.4g}{unit}"
        return
    yield f"{tried}: {task.target}, {len(values):,} numbers{unit and f' in{unit}'}"
    rows = list(enumerate(values))
    if len(rows) > _MANY:
        rows = sorted(rows, key=lambda row: row[1].r2 or 0.0)[:_LISTED]
        yield f"the {len(rows)} of least R2"
    yield f"{'number':>6}  {'MAE':>10}  {'RMSE':>10}  {'mean error':>10}  {'95% within':>10}  {'R2':>7}"
    for number, one in rows:
        errors = "  ".join(f"{error:>10.4g}" for error in (one.mae, one.rmse, one.mean_error, one.p95))
        yield f"{number:>6}  {errors}  {_r2(one.r2):>7}"


def _r2(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _matrix(found: ClassEvaluation) -> Iterator[str]:
    matrix, names = found.matrix(), [_name(name) for name in found.class_names]
    heads = [f"{number}" for number in range(len(names))]
    left = [f"{number:>2} {name}" for number, name in enumerate(names)]
    wide = max(map(len, left))
    columns = [max(len(head), *(len(f"{n:,}") for n in matrix[:, k])) for k, head in enumerate(heads)]
    yield " " * wide + "".join(f"  {head:>{width}}" for head, width in zip(heads, columns, strict=True))
    for row, name in zip(matrix, left, strict=True):
        cells = (f"  {number:>{width},}" for number, width in zip(row, columns, strict=True))
        yield f"{name:{wide}}{''.join(cells)}"


def _pairs(found: ClassEvaluation, classes: list[ClassScores]) -> Iterator[str]:
    confused = found.confused()
    if confused:
        yield from ("", "most often confused")
    for true, told, count in confused[:_LISTED]:
        one, other = (_name(classes[number].name) for number in (true, told))
        yield f"{one} taken for {other}: {count:,}, {count / classes[true].images:.1%} of its images"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _name(name: str) -> str:
    text = printable(name)
    return text if len(text) <= _NAME_WIDTH else f"{text[: _NAME_WIDTH - 3]}..."

"""``edgeprune evaluate``: how well a network tells what it has learned of labeled images."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.text import count_text, printable, say
from edgeprune_runtime.training.settings import TrainConfig

from ...options.fields import config_options
from ...options.networks import TRUST_MODEL, TTA
from ...options.output import file_of, require_other
from .predict import LABELED, tell

if TYPE_CHECKING:
    from edgeprune.inference.confusion import ClassEvaluation
    from edgeprune.inference.evaluation import Evaluation
    from edgeprune.inference.predictors import Tta
    from edgeprune_formats.remote.locations import RemoteFile

__all__ = ["command"]

FILE = click.Path(dir_okay=False, path_type=Path)
_LISTED, _NAME_WIDTH = 10, 24


@click.command("evaluate")
@click.argument("model", metavar="RUN", type=click.Path(exists=True, path_type=Path))
@click.argument("data", metavar="SOURCE_OR_PACK", type=LABELED)
@TRUST_MODEL
@click.option("--skip-bad", is_flag=True, help="Leave out images that cannot be read, and count them.")
@TTA
@config_options(TrainConfig, "device")
@click.option("--json", "as_json", type=FILE, metavar="FILE", help="Also write all figures as JSON.")
@click.option("--plot", type=FILE, metavar="FILE", help="Draw what was found, as .png, .svg or .pdf.")
def command(
    model: Path,
    data: Path | str | RemoteFile,
    skip_bad: bool,
    tta: Tta,
    device: str,
    as_json: Path | None,
    plot: Path | None,
) -> None:
    """Measure the predictions of RUN on the labeled images of SOURCE_OR_PACK.

    RUN is the folder of a run, finished or not, or an .onnx file. Of a source, the test split is read. Of a
    network that classifies, the output is recall, precision and F1 of each class, and the confusion matrix.
    With more than 20 classes, it shows the worst classes, and the pairs that are confused most often. Of a
    network that predicts several labels, it is the average precision of each; of one that predicts values,
    their errors.

    \b
    Example:
      edgeprune evaluate run imagefolder:photos
      edgeprune evaluate photos.onnx test.h5 --json test.json --plot confusion.png
    """
    from edgeprune.inference.evaluation import evaluate
    from edgeprune.inference.predictors import open_predictor
    from edgeprune.pictures import require_kind, require_matplotlib
    from edgeprune_formats import ConfigError
    from edgeprune_formats.files import atomic_file, check_writable

    if plot is not None:
        if as_json is not None and as_json.resolve() == plot.resolve():
            raise ConfigError(f"{plot}: --json and --plot name the same file; name two")
        require_matplotlib("`plot`")
        require_kind(plot)
    for path in filter(None, (as_json, plot)):
        require_other(path, {"network": model, "images": file_of(data)})
        check_writable(path)
    predictor = open_predictor(model, tell, device=device, tta=tta)
    found = evaluate(predictor, data, skip_bad=skip_bad, tell=tell)
    for line in _lines(found, "" if tta == "none" else " and mirrored"):
        say(line)
    if as_json is not None:
        record = {"model": str(model), "data": str(data), "tta": tta, **found.record()}
        with atomic_file(as_json) as partial:
            partial.write_text(json.dumps(record, indent=1) + "\n")
    if plot is not None:
        from edgeprune.inference.evaluation_pictures import draw

        draw(found, plot)


def _lines(found: Evaluation, how: str) -> Iterator[str]:
    from edgeprune.inference.confusion import ClassEvaluation
    from edgeprune.inference.evaluation_text import summary, table

    first, *others = summary(found)
    yield f"{count_text(found.images, 'image')}{how}: {first}"
    yield from others
    shown = table(found)
    if shown is None:
        return
    yield from ("", shown.note) if shown.note else ("",)
    yield from _columns([shown.head, *((_name(name), *figures) for name, *figures in shown.rows)])
    if not isinstance(found, ClassEvaluation):
        return
    if shown.note:
        yield from _pairs(found)
    else:
        yield from ("", "images by true class (rows) and predicted class (columns)")
        yield from _matrix(found)


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Give the lines of a table: the first column begins at the left, the others end at the right."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    for name, *figures in rows:
        cells = (f"  {figure:>{width}}" for figure, width in zip(figures, others, strict=True))
        yield f"{name:{first}}{''.join(cells)}"


def _matrix(found: ClassEvaluation) -> Iterator[str]:
    names = [f"{number:>2} {_name(name)}" for number, name in enumerate(found.class_names)]
    counts = ([f"{count:,}" for count in row] for row in found.matrix())
    heads = ["", *(f"{number}" for number in range(len(names)))]
    yield from _columns([heads, *([name, *row] for name, row in zip(names, counts, strict=True))])


def _pairs(found: ClassEvaluation) -> Iterator[str]:
    confused, classes = found.confused(), found.classes()
    if confused:
        yield from ("", "most often confused")
    for true, told, count in confused[:_LISTED]:
        one, other = (_name(classes[number].name) for number in (true, told))
        yield f"{one} taken for {other}: {count:,}, {count / classes[true].images:.1%} of its images"


def _name(name: str) -> str:
    text = printable(name)
    return text if len(text) <= _NAME_WIDTH else f"{text[: _NAME_WIDTH - 3]}..."

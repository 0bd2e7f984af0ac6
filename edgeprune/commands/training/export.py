"""``edgeprune export``: a trained network as one ONNX file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.text import say

from ...options.fields import FAR_PACK_FILE, FORCE, Command, SwitchOrChoice, option, output_option
from ...options.given import refuse_given
from ...options.networks import TRUST_MODEL
from ...options.output import file_of, require_spare

if TYPE_CHECKING:
    from edgeprune.inference.export import ExportConfig, ExportReport
    from edgeprune_formats.remote.locations import RemoteFile

__all__ = ["command"]


@click.command("export", cls=Command)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@output_option("ONNX file to write.")
@option(
    "--int8",
    type=SwitchOrChoice(["onnxruntime", "tensorrt"]),
    default=False,
    show_default=False,
    metavar="[onnxruntime|tensorrt]",
    help="Quantize to 8-bit integers; needs --pack. Without a value: for the runtime of --for, else "
    "onnxruntime.",
)
@option(
    "--for",
    "runtime",
    metavar="RUNTIME[==VERSION]",
    help="Write a file that this runtime reads: onnxruntime from 1.7 on, or tensorrt from 8.0 on.  [default: "
    "onnxruntime from 1.14 on]",
)
@option(
    "--with-decoder",
    "decoder",
    is_flag=True,
    help="Export a network that takes the coefficients of a pack instead of images.",
)
@option(
    "--pack",
    type=FAR_PACK_FILE,
    help="Pack with images to calibrate int8 and to compare ONNX with torch, e.g. the pack of the run.",
)
@option(
    "--calibrate", type=int, default=256, show_default=True, help="Number of images to calibrate int8 with."
)
@option("--test", metavar="PACK_OR_SOURCE", help="Also measure the accuracy on these images.")
@TRUST_MODEL
@FORCE
def command(
    run: Path,
    output: Path,
    int8: bool | str,
    runtime: str | None,
    decoder: bool,
    pack: Path | RemoteFile | None,
    calibrate: int,
    test: str | None,
    force: bool,
) -> None:
    """Write the trained network of RUN as an ONNX file.

    RUN is a folder of `edgeprune train`. If the run is not finished, the best weights so far (with
    --patience) or the last checkpoint are used. The input is images, float32 [n, C, height, width] in [0, 1];
    the network normalizes them. The output is logits for classes, probabilities for several labels, and
    values in their unit. The file appears once it was checked and compared with torch in onnxruntime.

    \b
    Example:
      edgeprune export run -o photos.onnx --pack photos.h5
      edgeprune export run -o photos.onnx --int8 --pack photos.h5 --test imagefolder:photos/test
      edgeprune export run -o photos.onnx --int8 tensorrt --for tensorrt==8.5 --pack photos.h5
      edgeprune export run -o photos.onnx --with-decoder
    """
    from edgeprune_runtime.onnx.session import require

    if not int8:
        refuse_given(("calibrate",), "without --int8")
    require("exporting", "torch", "onnx", "onnxscript", "onnxruntime")
    from edgeprune.inference.export import ExportConfig, export_run

    require_spare(output, force, {"pack": file_of(pack), "test set": file_of(test)})
    config = ExportConfig(int8=int8, decoder=decoder, calibrate=calibrate, runtime=runtime)
    report = export_run(run, output, config, pack=pack, test=test)
    for line in _lines(output, config, report, test):
        say(line)


def _lines(output: Path, config: ExportConfig, report: ExportReport, test: str | None) -> Iterator[str]:
    from edgeprune_runtime.training.progress.lines import metrics_text

    what = config.precision + (" for tensorrt" if config.quantized_for == "tensorrt" else "")
    decoder = " with decoder" if config.decoder else ""
    yield f"{output}: {report.network.name}, {what}{decoder}, {report.size / 1e6:.2f} MB"
    if config.runtime is not None:
        target = config.target
        yield f"  for {config.runtime}: opset {target.opset}, IR version {target.ir_version}"
    if report.network.stage is not None:
        yield f"  {report.network.stage}"
    found, unit = report.agreement, " standard deviations" * (report.network.task.kind == "value")
    yield (
        f"  float32 against torch  outputs up to {found.logit:.3g}{unit} differ by {found.difference:.1e} at "
        f"most, {found.images:,} images"
    )
    if report.same_class is not None:
        same, count = report.same_class, report.calibrated
        what = "labels" if report.network.task.kind == "multilabel" else "class"
        yield f"  int8 against float32   the same {what} for {same:.1%} of {count:,} images"
    if report.deviation is not None:
        yield (
            f"  int8 against float32   values differ by {report.deviation:.3f} standard deviations in the "
            f"mean, {report.calibrated:,} images"
        )
    if report.accuracy:
        each = ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in report.accuracy.items())
        yield f"  test accuracy          {each}, {report.tested:,} images of {test}"
        return
    for name, measured in report.metrics.items():
        text = metrics_text({f"test_{key}": value for key, value in measured.items()}, "test")
        yield f"  test, {name:<16} {text}, {report.tested:,} images of {test}"

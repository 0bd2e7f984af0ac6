"""``edgeprune export``: a trained network as one ONNX file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeprune.text import printable
from edgeprune_formats import ConfigError

if TYPE_CHECKING:
    from edgeprune.inference.export import ExportConfig, ExportReport

__all__ = ["command"]


@click.command("export")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .onnx to write.")
@click.option("--int8", is_flag=True, help="Quantize to 8-bit integers; needs --pack.")
@click.option("--with-decoder", "decoder", is_flag=True, help="Take a pack's coefficients, not images.")
@click.option(
    "--pack",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Images to calibrate int8 with and to compare with torch on, such as the pack of the run.",
)
@click.option("--calibrate", type=int, default=256, show_default=True, help="Images to calibrate int8 with.")
@click.option("--test", metavar="PACK_OR_SOURCE", help="Measure accuracy on this.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
def command(
    run: Path,
    output: Path,
    int8: bool,
    decoder: bool,
    pack: Path | None,
    calibrate: int,
    test: str | None,
    force: bool,
) -> None:
    """Write the trained network of RUN, a folder of `edgeprune train`, as an ONNX file.

    It takes images, float32 [n, 3, height, width] on [0, 1], and gives logits; normalization is part of
    it. The file appears when it was checked, and compared with torch in onnxruntime.

    \b
    Example:
      edgeprune export run -o photos.onnx --pack photos.h5
      edgeprune export run -o photos.onnx --int8 --pack photos.h5 --test imagefolder:photos/test
      edgeprune export run -o photos.onnx --with-decoder
    """
    from edgeprune_runtime.onnx.session import require

    require("exporting", "torch", "onnx", "onnxscript", "onnxruntime")
    from edgeprune.inference.export import ExportConfig, export_run

    if output.exists() and not force and not output.is_dir():
        raise ConfigError(f"{output} exists; pass --force to replace it")
    config = ExportConfig(int8=int8, decoder=decoder, calibrate=calibrate)
    report = export_run(run, output, config, pack=pack, test=test)
    for line in _lines(output, config, report, test):
        click.echo(printable(line))


def _lines(output: Path, config: ExportConfig, report: ExportReport, test: str | None) -> Iterator[str]:
    decoder = " with decoder" if config.decoder else ""
    yield f"{output}: {report.network.name}, {config.precision}{decoder}, {report.size / 1e6:.2f} MB"
    found = report.agreement
    yield (
        f"  float32 against torch  logits up to {found.logit:.3g} differ by {found.difference:.1e} at most, "
        f"{found.images:,} images"
    )
    if report.same_class is not None:
        same, count = report.same_class, report.calibrated
        yield f"  int8 against float32   the same class for {same:.1%} of {count:,} images"
    if report.accuracy:
        each = ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in report.accuracy.items())
        yield f"  test accuracy          {each}, {report.tested:,} images of {test}"

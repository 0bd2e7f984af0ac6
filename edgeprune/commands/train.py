"""``edgeprune train``: train a network from a pack."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.printing import count_text
from edgeprune_formats import ConfigError

if TYPE_CHECKING:
    from edgeprune_formats import Pack
    from edgeprune_runtime import Mixture

__all__ = ["command", "train_pack"]

MODELS = (
    "shufflenet_v2",
    "mobilenet_v2",
    "efficientnet_b0",
    "resnet18",
    "resnet34",
    "resnet8",
    "resnet20",
)
AUGMENTS = ("none", "crop", "flip", "crop+flip")


@click.command("train")
@click.argument(
    "packs",
    metavar="PACK...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--model", type=click.Choice(MODELS), default="mobilenet_v2", show_default=True)
@click.option("--test", metavar="PACK_OR_SOURCE", help="Test on this after each epoch.")
@click.option("--epochs", type=int, default=30, show_default=True)
@click.option("--batch-size", type=int, default=128, show_default=True)
@click.option("--lr", type=float, default=0.05, show_default=True, help="Peak learning rate.")
@click.option("--weight-decay", type=float, default=5e-4, show_default=True)
@click.option("--ema", type=float, help="Decay of a moving average of the weights, e.g. 0.999.")
@click.option(
    "--augment",
    type=click.Choice(AUGMENTS),
    default="crop+flip",
    show_default=True,
    help="Random crop after reflect padding, random horizontal flip.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="bfloat16 is autocast; auto uses it where it pays.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in the folder.")
def command(
    packs: tuple[Path, ...], output: Path, test: str | None, resume: bool, augment: str, **options: Any
) -> None:
    """Train a network from PACK, or from several of one image size and the same classes, mixed.

    The folder receives metrics.jsonl, a checkpoint after each epoch, and model.safetensors. A run that was
    killed goes on with --resume, to the same result. An epoch leaves out a last batch that is not full,
    other images each time, unless the whole pack is smaller than a batch.

    \b
    Example:
      edgeprune train photos.h5 --model mobilenet_v2 --test imagefolder:photos/test -o run
      edgeprune train photos.h5 --model mobilenet_v2 --test imagefolder:photos/test -o run --resume
    """
    if importlib.util.find_spec("torch") is None:
        raise ConfigError("training needs torch; pip install 'edgeprune[torch]'")
    from edgeprune_runtime import open_packs

    metrics = train_pack(open_packs(packs), output, test=test, resume=resume, augment=augment, **options)
    tested = "" if metrics["test_accuracy"] is None else f", test accuracy {metrics['test_accuracy']:.2%}"
    epochs = count_text(options["epochs"], "epoch")
    click.echo(f"{output / 'model.safetensors'}: {options['model']}, {epochs}{tested}")


def train_pack(
    pack: Pack | Mixture, output: Path, *, test: str | None, resume: bool, augment: str, **options: Any
) -> dict[str, Any]:
    """Train from open packs and return the last epoch's metrics; `options` are those of `TrainConfig`.

    Raises
    ------
    ConfigError, SourceError, PackFormatError, TrainingError, TrainingInterrupted
        See `edgeprune_runtime.training.train` and `edgeprune.evaluation.open_test`.
    """
    from edgeprune.evaluation import open_test
    from edgeprune_runtime import PackLoader
    from edgeprune_runtime.training import TrainConfig, train

    config = TrainConfig(**options)
    header = pack.header
    loader = PackLoader(
        pack,
        config.batch_size,
        shuffle=True,
        seed=config.seed,
        backend="torch",
        device=config.device,
        drop_last=len(pack) >= config.batch_size,
        augment=augment,
        normalize=True,
    )
    result = train(
        loader,
        config,
        output,
        num_classes=len(header.class_names),
        image_shape=header.shape,
        test=open_test(test, header) if test is not None else None,
        resume=resume,
        provenance={
            **_prefixed(header.provenance),
            "mean": header.mean,
            "std": header.std,
            "class_names": header.class_names,
            "augment": augment,
            "test": test,
        },
        report=_Reporter(config.epochs),
    )
    return result.metrics[-1]


def _prefixed(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {f"pack {name}": value for name, value in provenance.items()}


class _Reporter:
    """Prints a line for each epoch and, on a terminal, a live line in between."""

    def __init__(self, epochs: int) -> None:
        self._live = sys.stderr.isatty()
        self._epochs = epochs

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "step":
            if self._live:
                click.echo(f"\r\x1b[K{_step_line(event)}", err=True, nl=False)
            return
        if self._live:
            click.echo("\r\x1b[K", err=True, nl=False)
        click.echo(_epoch_line(event, self._epochs))


def _step_line(event: dict[str, Any]) -> str:
    minutes, seconds = divmod(round(event["eta_seconds"]), 60)
    return (
        f"epoch {event['epoch']}/{event['epochs']} step {event['step']:,}/{event['steps']:,} "
        f"loss {event['loss']:.3f} {event['images_per_second']:,.0f} images/s ETA {minutes}:{seconds:02d}"
    )


def _epoch_line(metrics: dict[str, Any], epochs: int) -> str:
    line = (
        f"epoch {metrics['epoch']:>3}/{epochs}  train loss {metrics['train_loss']:.4f} "
        f"accuracy {metrics['train_accuracy']:.2%}"
    )
    if metrics["test_accuracy"] is not None:
        line += f"  test loss {metrics['test_loss']:.4f} accuracy {metrics['test_accuracy']:.2%}"
    return f"{line}  {metrics['images_per_second']:,.0f} images/s"

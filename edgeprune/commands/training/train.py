"""``edgeprune train``: train a network from a pack."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeprune.scoring.config import ScoreConfig
from edgeprune.text import say_if_read
from edgeprune_formats import ConfigError
from edgeprune_formats.remote.locations import RemoteFile, as_remote
from edgeprune_formats.targets import LABEL
from edgeprune_runtime.decode.augmentation import LOADER_AUGMENTS
from edgeprune_runtime.loading.order.replay import Replay
from edgeprune_runtime.loading.order.skipping import ON_CORRUPT
from edgeprune_runtime.networks.names import ONE_STEM
from edgeprune_runtime.training.defaults import defaults_of, learning_rate_of
from edgeprune_runtime.training.settings import TrainConfig

from ...options.fields import EXISTING, FAR_PACKS, Command, config_options, make_config, option, output_option
from ...options.given import is_given, refuse_given
from ...options.networks import NETWORK, TRUST_MODEL
from ...options.parameters import own_flags, say_warning
from ...options.sizes import MEMORY
from ...options.torch import THREADS, choose_threads, require_torch

if TYPE_CHECKING:
    from edgeprune.training.setup import Setup
    from edgeprune_runtime.decode.augmentation import LoaderAugment
    from edgeprune_runtime.loading.order.skipping import OnCorrupt
    from edgeprune_runtime.training.interfaces import OnEvent

__all__ = ["command"]

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
# What a context knows of batches whose parts are chosen.
_FULL_BATCH = "edgeprune.full_batch"


def _batch_size(text: str) -> int | str:
    try:
        return "auto" if text == "auto" else int(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is neither a number nor auto") from None


BATCH_SIZE = {
    "type": _batch_size,
    "metavar": "INTEGER|auto",
    "help": "Images in each step; auto also splits the batch into parts if memory is short (see "
    "--accumulate).",
}
LR = {
    "help": "Peak of the learning rate.  "
    f"[default: {TrainConfig.lr}; for a batch N below {TrainConfig.batch_size}, times "
    f"sqrt(N/{TrainConfig.batch_size})]",
    "show_default": False,
}
AUGMENT = {
    "type": click.Choice(LOADER_AUGMENTS),
    "help": "Random changes of the training images: crop (after reflect padding), flip (horizontal) or both; "
    "short, for few epochs; light or strong, which change more.",
}


class _Resumable(Command):
    """Has the options that are not given from the run that it goes on with, or else from the network."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; `click.Command.invoke`."""
        own = _own_settings(ctx.params) if ctx.params["init"] is None else {}
        self._take(ctx, own)
        if "lr" not in own:
            self._take(ctx, {"lr": learning_rate_of(_full_batch(ctx, ctx.params["batch_size"]))})
        if ctx.params["resume"]:
            require_torch()
            from edgeprune.training.resuming import recorded_options, require_same_signer

            require_same_signer(ctx.params["output"], ctx.params["require_signature"] is not None)
            self._take(ctx, recorded_options(ctx.params["output"]))
        return super().invoke(ctx)

    def _take(self, ctx: click.Context, options: dict[str, Any]) -> None:
        """Set the options that the user has not given."""
        for name, value in options.items():
            if name == "batch_size":
                ctx.meta[_FULL_BATCH] = value
            chosen = name == "accumulate" and ctx.params["batch_size"] == "auto"
            if name in ctx.params and not is_given(name) and not chosen:
                ctx.params[name] = value


def _full_batch(ctx: click.Context, size: int | str) -> int:
    """Return the images in a step, also where its parts are to be chosen."""
    return int(ctx.meta.get(_FULL_BATCH, TrainConfig.batch_size) if size == "auto" else size)


def _own_settings(params: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the network brings with it, as far as they go with what is learned."""
    settings = defaults_of(params["model"])
    if params["teacher"] is not None or params["target"] != LABEL or params["distill"] == 1:
        # It is for labels.
        settings.pop("label_smoothing", None)
    return settings


@click.command("train", cls=_Resumable)
@FAR_PACKS
@output_option("Folder of the run.", heading="The run")
@config_options(TrainConfig, "model", "stem", model=NETWORK)
@TRUST_MODEL
@option(
    "--target",
    default=LABEL,
    show_default=True,
    metavar="NAME",
    help="Target of the packs to learn: classes, several labels, values or probabilities; see edgeprune "
    "info.",
)
@option(
    "--test",
    metavar="PACK_OR_SOURCE",
    help="Test on these images after each epoch (of a source, its test split).",
)
@option(
    "--require-signature",
    type=FILE,
    metavar="KEY",
    help="Accept only packs that the owner of this public key has signed.",
)
@option("--skip-bad", is_flag=True, help="Leave out test images that cannot be read, and print their names.")
@option(
    "--on-corrupt",
    type=click.Choice(ON_CORRUPT),
    default="fail",
    show_default=True,
    help="Stop if a part of PACK is damaged (fail), or leave its images out (skip).",
)
@option(
    "--resume",
    is_flag=True,
    help="Continue the run in the folder with the options that it was started with; --epochs may be raised.",
)
@option(
    "--init",
    type=EXISTING,
    metavar="RUN|FILE",
    help="Start from trained weights: those of a run (classes are matched by name), or a .safetensors or "
    ".pth "
    "file, such as one of torchvision or timm.",
)
@config_options(TrainConfig, "epochs", "batch_size", "lr", heading="Training", batch_size=BATCH_SIZE, lr=LR)
@config_options(ScoreConfig, "augment", augment=AUGMENT)
@config_options(TrainConfig, "schedule", "warm_up", "optimizer", "momentum", "weight_decay", "ema")
@config_options(TrainConfig, "freeze", "adversarial")
@option(
    "--teacher",
    type=FOLDER,
    metavar="RUN",
    help="Learn the predictions of this run's network, computed for each batch, instead of the labels.",
)
@config_options(TrainConfig, "distill", "distill_temperature")
@config_options(TrainConfig, "label_smoothing", "class_weights", "sampling", "resolution_schedule")
@config_options(TrainConfig, "clip_norm", "patience", "seed")
@option(
    "--replay",
    heading="New images beside old ones",
    type=float,
    metavar="SHARE",
    help="Share of old images in each batch, e.g. 0.5. An epoch then shows each new image once.",
)
@config_options(Replay, "new_packs")
@config_options(TrainConfig, "device", "precision", heading="Machine")
@THREADS
@MEMORY
@config_options(TrainConfig, "accumulate")
@option(
    "--checkpoint-minutes",
    heading="Checkpoints and curves",
    type=float,
    default=5.0,
    show_default=True,
    help="Write a checkpoint after this many minutes, besides the one after each epoch.",
)
@option("--checkpoint-steps", type=int, help="Also write a checkpoint after this many steps.")
@option("--tensorboard", is_flag=True, help="Also write the curves for TensorBoard.")
def command(
    packs: tuple[Path | RemoteFile, ...],
    output: Path,
    target: str,
    test: str | None,
    require_signature: Path | None,
    skip_bad: bool,
    batch_size: int | str,
    augment: LoaderAugment,
    init: Path | None,
    teacher: Path | None,
    threads: int | None,
    memory: int | None,
    checkpoint_minutes: float,
    checkpoint_steps: int | None,
    on_corrupt: OnCorrupt,
    tensorboard: bool,
    replay: float | None,
    new_packs: int,
    resume: bool,
    **options: Any,
) -> None:
    """Train a network from one PACK, or from several together.

    Several packs must have images of one size; their classes are matched by name. The folder receives
    metrics.jsonl, checkpoints, and model.safetensors. --resume continues a stopped run, to the same result.
    An epoch skips its last batch if that is not full; the skipped images differ from epoch to epoch. A pack
    smaller than a batch is used whole. PACK may be a URL: the pack is downloaded once and verified, into the
    folder EDGEPRUNE_CACHE or ~/.cache/edgeprune.

    \b
    Example:
      edgeprune train photos.h5 --model mobilenet_v2 --test imagefolder:photos -o run
      edgeprune train photos.h5 -o run --resume
      edgeprune train photos.h5 -o run --resume --epochs 60
      edgeprune train 'https://example.org/photos.h5#sha256=DIGEST' -o run
      edgeprune train photos.h5 --target weight --test imagefolder:photos -o run
      edgeprune train photos.h5 --distill 0.7 --test imagefolder:photos -o run
      edgeprune train photos.h5 --adversarial n-fgsm --test imagefolder:photos -o robust
      edgeprune train packs/*.h5 --init run --replay 0.5 -o run2
      edgeprune train photos.h5 --init imagenet.safetensors --freeze --memory 300MB --batch-size auto -o run
    """
    require_torch()
    from edgeprune.training.lines import result_line
    from edgeprune.training.setup import set_up
    from edgeprune_runtime import open_packs
    from edgeprune_runtime.training import Cadence

    if test is None:
        refuse_given(("skip_bad",), "without --test")
    cadence = Cadence(checkpoint_steps, checkpoint_minutes * 60)
    config = _config(batch_size, options)
    _require_effect(config)
    _require_one_teacher(config, teacher)
    choose_threads(threads)
    tested: str | RemoteFile | None = None if test is None else as_remote(test) or test
    signer = None
    if require_signature is not None:
        signer, packs, tested = _signed(packs, tested, require_signature)
    setup = set_up(
        open_packs(packs),
        output,
        config,
        augment=augment,
        test=tested,
        skip_bad=skip_bad,
        memory=memory,
        choose_batch=batch_size == "auto",
        on_corrupt=on_corrupt,
        replay=_replay(replay, new_packs),
        resume=resume,
        target=target,
    )
    _say_setup(setup, output, resume)
    with ExitStack() as stack:
        report = _reports(setup, output, tensorboard, stack)
        metrics = setup.train(
            output, init=init, teacher=teacher, resume=resume, cadence=cadence, report=report, signer=signer
        )
    say_if_read(f"{output / 'model.safetensors'}: {result_line(config, metrics)}")


def _replay(share: float | None, new_packs: int) -> Replay | None:
    if share is not None:
        return Replay(share, new_packs)
    if new_packs != Replay.new_packs:
        raise click.UsageError("--new-packs needs --replay", click.get_current_context())
    return None


def _say_setup(setup: Setup, output: Path, resume: bool) -> None:
    """Say what a user should know before the run begins."""
    from edgeprune.training.lines import replay_line
    from edgeprune_runtime.networks.trained import MODEL_FILE
    from edgeprune_runtime.training.run_folder.checkpoint import has_checkpoint

    if setup.loader.replay is not None:
        say_if_read(replay_line(setup.loader.replay))
    for note in setup.notes:
        say_warning(note)
    if resume and not has_checkpoint(output) and not (output / MODEL_FILE).exists():
        config = setup.config
        say_if_read(f"{output}: nothing to resume; begins {config.model}, {config.epochs} epochs")


def _require_effect(config: TrainConfig) -> None:
    """Refuse what the user gives and the run would not use; what it has recorded is kept."""
    if config.model in ONE_STEM and is_given("stem") and config.stem != "auto":
        raise ConfigError(f"--stem {config.stem} has no effect: {config.model} has one stem; leave it out")
    if config.distill == 1 and is_given("label_smoothing") and config.label_smoothing:
        raise ConfigError("--label-smoothing has no effect beside --distill 1; leave it out")


def _require_one_teacher(config: TrainConfig, teacher: Path | None) -> None:
    if teacher is not None and config.distill:
        raise ConfigError(
            "--teacher asks a network at each step, --distill has its answers from the pack; leave one out"
        )


def _config(batch_size: int | str, options: dict[str, Any]) -> TrainConfig:
    if batch_size != "auto":
        return make_config(TrainConfig, options, batch_size=batch_size)
    if options["accumulate"] != 1:
        raise ConfigError("--batch-size auto chooses --accumulate; give one of the two")
    return make_config(TrainConfig, options, batch_size=_full_batch(click.get_current_context(), batch_size))


def _signed(
    packs: tuple[Path | RemoteFile, ...], test: str | RemoteFile | None, key: Path
) -> tuple[str, tuple[Path | RemoteFile, ...], str | RemoteFile | None]:
    """Return the fingerprint of the key that has signed all packs, and what to open: far ones by digest."""
    from edgeprune_runtime.signatures import signed_pack

    def signed(path: Path | RemoteFile) -> tuple[str, Path | RemoteFile]:
        made, found = signed_pack(path, key)
        say_if_read(f"{path}: signed by {made.key}")
        return made.key, found

    found = [signed(path) for path in packs]
    if isinstance(test, RemoteFile):
        test = as_remote(signed(test)[1])
    elif test is not None and Path(test).is_file():
        signed(Path(test))
    return found[-1][0], tuple(path for _, path in found), test


def _reports(setup: Setup, output: Path, tensorboard: bool, stack: ExitStack) -> OnEvent:
    from edgeprune.training.lines import setting_line
    from edgeprune.training.reports import TensorBoardReport, TerminalReport

    terminal = TerminalReport(setup.config.epochs, setting_line(setup), own_flags)
    if not tensorboard:
        return terminal
    curves = stack.enter_context(TensorBoardReport(output))

    def report(event: dict[str, Any]) -> None:
        curves(event)
        terminal(event)

    return report

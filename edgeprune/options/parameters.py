"""From the parameters that an error of the library names to the flags of the command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial

import click

from edgeprune.text import say, say_if_read

from .fields import Option

__all__ = ["OF_PARAMETERS", "own_flags", "say_skipped", "say_warning", "with_flags"]

OF_PARAMETERS = ("build", "train", "score", "convert")
"""The commands whose flags stand for a parameter that the command that runs lacks."""
# `name`, `Class.name` or `name=value`, and nothing else in backticks.
_PARAMETER = re.compile(r"`([A-Za-z_][\w.]*)(?:=([^`]*))?`")
_SAME = {
    "replace_existing": "force",
    "run_dir": "output",
    "Replay.share": "replay",
    "Cadence.steps": "checkpoint_steps",
    "Cadence.seconds": "checkpoint_minutes",
}


def with_flags(message: str, commands: Iterable[Callable[[], click.Command | None]]) -> str:
    """Return a message with flags in place of the parameters in backticks.

    The first of the commands that has such a parameter says its flag; they are loaded when they are asked. A
    parameter that none has keeps its name.

    Examples
    --------
    ``"pass `skip_bad=True`"`` becomes ``"pass --skip-bad"``, and ``"`MaskConfig.epochs` is 0"`` becomes
    ``"--mask-epochs is 0"``.
    """
    if not _PARAMETER.search(message):
        return message
    flags: dict[str, str] = {}
    for load in commands:
        if command := load():
            flags = _flags(command) | flags

    def flag(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        text = flags.get(_SAME.get(name, name), name.rpartition(".")[2])
        return text if value in (None, "True") else f"{text} {value.strip(chr(34) + chr(39))}"

    return _PARAMETER.sub(flag, message)


def own_flags(message: str) -> str:
    """Return a message as `with_flags`, of the command that runs, and else of those with most parameters."""
    context = click.get_current_context(silent=True)
    if context is None:
        return message
    root = context.find_root()
    group, others = root.command, []
    if isinstance(group, click.Group):
        others = [partial(group.get_command, root, name) for name in OF_PARAMETERS]
    return with_flags(message, [lambda: context.command, *others])


def say_warning(note: str) -> None:
    """Print what a user should know, on stderr, with the flags of the command that runs."""
    say_if_read(f"warning: {own_flags(note)}", err=True)


def say_skipped(messages: Iterable[str]) -> None:
    """Print which images were left out, and why."""
    for message in messages:
        # What stands before the colon is the name of a file, which may have anything in it.
        name, colon, reason = message.partition(": ")
        say(f"skipped {name}{colon}{own_flags(reason)}")


def _flags(command: click.Command) -> dict[str, str]:
    """Return what the command line calls a command's parameters, as ``name`` and as ``Class.name``."""
    flags: dict[str, str] = {}
    bare: dict[str, str] = {}
    for param in command.params:
        long = [flag for flag in param.opts if flag.startswith("--")]
        text = (long or param.opts)[0] if isinstance(param, click.Option) else param.human_readable_name
        flags[param.name or ""] = text
        if isinstance(param, Option) and param.config is not None:
            flags[f"{param.config.__name__}.{param.field}"] = text
            # A prefix stands for the class: without it nobody knows which configuration is meant.
            is_prefixed = text == "--" + (param.name or "").replace("_", "-")
            bare[param.field] = param.field if is_prefixed else text
    return bare | flags

"""The command ``edgeprune``: finds the command's module when it runs, and turns errors into one line."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from functools import partial
from importlib.metadata import entry_points
from threading import current_thread, main_thread
from types import FrameType
from typing import NoReturn

import click

from edgeprune_formats import ConfigError, EdgePruneError, __version__
from edgeprune_formats.remote.locations import without_credentials
from edgeprune_runtime.training.progress.signals import TrainingInterrupted

from .options.parameters import OF_PARAMETERS, with_flags
from .text import escape_streams, live, printable, say_if_read
from .work.processes import process_rank

__all__ = ["cli", "main"]

# In the order of a pack's life; each with the package that its commands lie in.
SECTIONS = {
    "Try it": (".", ("demo",)),
    "Make packs": (".packs.", ("build", "add", "score", "issues", "convert", "split", "merge", "repair")),
    "Look into packs": (".inspection.", ("info", "verify", "preview", "report")),
    "Sign packs": (".signatures.", ("keygen", "sign")),
    "Train on a device": (".training.", ("train", "plot", "profile", "export", "predict", "evaluate")),
    "Ask for help": (".", ("doctor",)),
}
COMMANDS = {name: room + name for room, names in SECTIONS.values() for name in names}
# Packages above this one add commands of their own, which are looked up by name.
ENTRY_POINTS = "edgeprune.commands"
MISUSE, BAD_DATA, INTERRUPTED = 2, 1, 130
NO_MEMORY = "out of memory; choose smaller images or batches (edgeprune train: --batch-size auto)"
# Seconds until a place is left that no exception leaves.
_SOON = 0.01
# Torch has no exception of its own for a host's memory, one for CUDA's that is a RuntimeError, and oneDNN's.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "could not create a primitive")


class _Commands(click.Group):
    """Loads a module of `edgeprune.commands`, or an entry point, when its command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(entry_points(group=ENTRY_POINTS).names)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        command: click.Command
        if name in COMMANDS:
            command = importlib.import_module(COMMANDS[name], "edgeprune.commands").command
            return command
        for found in entry_points(group=ENTRY_POINTS, name=name):
            try:
                command = found.load()
            except ModuleNotFoundError as error:
                raise ConfigError(f"{name} needs {error.name}; pip install 'edgeprune[{name}]'") from error
            return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        others = [name for name in self.list_commands(ctx) if name not in COMMANDS]
        for heading, (_, names) in {**SECTIONS, "Measure": ("", others)}.items():
            found = [(name, command) for name in names if (command := self.get_command(ctx, name))]
            if found:
                with formatter.section(heading):
                    formatter.write_dl([(name, command.get_short_help_str(110)) for name, command in found])


@click.command(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="edgeprune")
def cli() -> None:
    """Prune a training set to the frequencies and images that matter, and train from it on a small device.

    A pack is one HDF5 file with the pruned training set. A run is the folder of one training.

    \b
    Example:
      edgeprune build imagefolder:photos --size 224 --freq-prune 0.7 -o photos.h5
      edgeprune train photos.h5 --model mobilenet_v2 -o run
    """


def _fail(message: str, code: int) -> NoReturn:
    # Of a signal: what a user, or a system that shuts down, asked for.
    is_asked_for = code > 128
    kind = "" if is_asked_for else "error: "
    if sys.stderr.isatty():
        # A live line of progress may stand there.
        live()
    if not is_asked_for or process_rank() == 0:
        say_if_read(f"edgeprune: {kind}{without_credentials(message)}", err=True)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # What NCCL does at exit waits for the other processes, which wait for this one.
        _flush()
        os._exit(code)
    sys.exit(code)


def _open_streams() -> None:
    """Let what is printed to a closed stream go nowhere; else the next file to open has its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123


def _flush() -> None:
    """Send what was printed; where nobody reads it any more, let Python not complain of it at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"edgeprune: warning: {printable(without_credentials(str(message)))}\n"


def _in_flags(error: Exception) -> str:
    """Return what a library's error says, with the flags of the command that runs."""
    others = [partial(cli.get_command, click.Context(cli), name) for name in OF_PARAMETERS]
    return with_flags(str(error), [_running, *others])


def _running() -> click.Command | None:
    """Return the command that runs, also where it is one of a group."""
    command: click.Command | None = cli
    for name in sys.argv[1:3]:
        if isinstance(command, click.Group):
            command = command.get_command(click.Context(command), name)
    return command


def _usage(error: click.UsageError) -> str:
    help_command = f"{error.ctx.command_path} --help" if error.ctx else "edgeprune --help"
    return f"{' '.join(error.format_message().split())} (see {help_command})"


class _Termination:
    """Ends the command by an exception, so that whatever is half written is removed.

    An exception that comes in a finalizer, or in a callback from C, can only be printed there. The command
    would go on to its end, with status 0. So it is raised again, at the latest at that end.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def on_signal(self, number: int, frame: FrameType | None) -> NoReturn:
        """Leave, with the status that a shell gives for a signal."""
        self.error = SystemExit(128 + number)
        raise self.error

    def on_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Raise it again, once the place is left where it would be lost."""
        error = unraisable.exc_value
        if isinstance(error, SystemExit | KeyboardInterrupt) and current_thread() is main_thread():
            self.error = error
            signal.signal(signal.SIGALRM, lambda number, frame: self.settle())
            signal.setitimer(signal.ITIMER_REAL, _SOON)
        else:
            sys.__unraisablehook__(unraisable)

    def settle(self) -> None:
        """Raise what came and was lost."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self.error is not None:
            raise self.error


def main() -> None:
    """Run the command line.

    Exit status: 0 done, 1 data or files that are unusable, or nobody reads what is printed, 2 a wrong option,
    129 hung up, 130 interrupted, 143 terminated.
    """
    _open_streams()
    escape_streams()
    termination = _Termination()
    sys.unraisablehook = termination.on_unraisable
    signal.signal(signal.SIGTERM, termination.on_signal)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, termination.on_signal)
    warnings.formatwarning = _one_line
    if len(sys.argv) == 1:
        sys.argv.append("--help")
    try:
        _run(termination)
    finally:
        _flush()


def _run(termination: _Termination) -> None:
    try:
        cli(prog_name="edgeprune", standalone_mode=False)
        termination.settle()
    except click.UsageError as error:
        _fail(_usage(error), MISUSE)
    except click.ClickException as error:
        _fail(error.format_message(), BAD_DATA)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except TrainingInterrupted as error:
        _fail(_in_flags(error), 128 + error.number)
    except ConfigError as error:
        _fail(_in_flags(error), MISUSE)
    except EdgePruneError as error:
        _fail(_in_flags(error), BAD_DATA)
    except BrokenPipeError:
        # The reader of our output has gone, e.g. head.
        sys.exit(BAD_DATA)
    except OSError as error:
        _fail(f"{error.filename or 'system'}: {error.strerror or error}", BAD_DATA)
    except MemoryError:
        _fail(NO_MEMORY, BAD_DATA)
    except (KeyboardInterrupt, click.Abort):
        # Before RuntimeError, which click's is one of.
        _fail("interrupted", INTERRUPTED)
    except RuntimeError as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            _fail(f"torch.compile failed ({str(error).splitlines()[0]}); leave --compile out", BAD_DATA)
        if not any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        _fail(NO_MEMORY, BAD_DATA)

"""Options of commands: made of the fields of a configuration, and listed under headings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import click

from edgeprune_formats import ConfigError
from edgeprune_formats.remote.locations import as_remote

__all__ = [
    "EXISTING",
    "FAR_PACK",
    "FAR_PACKS",
    "FAR_PACK_FILE",
    "FORCE",
    "PACK",
    "PACKS",
    "PACK_FILE",
    "QUIET",
    "Command",
    "Option",
    "PackFile",
    "SwitchOrChoice",
    "config_options",
    "make_config",
    "option",
    "output_option",
]

Config = TypeVar("Config")
Decorator = Callable[[Any], Any]
EXISTING = click.Path(exists=True, path_type=Path)
_FLAGS_WIDTH = 24
_ALONE = "true"


class PackFile(click.Path):
    """A pack on this disk, or with `far` also the URL of one, which becomes a `RemoteFile`."""

    def __init__(self, *, far: bool = False, **settings: Any) -> None:
        super().__init__(**{"exists": True, "dir_okay": False, "path_type": Path, **settings})
        self._far = far

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path or the far file; errors do not show credentials."""
        try:
            remote = as_remote(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)
        if remote is None:
            return super().convert(value, param, ctx)
        if not self._far:
            self.fail(f"{remote}: takes a file on this disk; edgeprune verify URL fetches it", param, ctx)
        return remote


PACK_FILE = PackFile()
FAR_PACK_FILE = PackFile(far=True)


class Option(click.Option):
    """An option under a heading of the help.

    Parameters
    ----------
    heading : str, optional
        Begins a section of the help with this option; by default it is listed after the one before it.
    config, field : type, str, optional
        The dataclass and the name of the field that the option sets.
    alias : str, optional
        Another flag that the help does not show.
    """

    def __init__(
        self,
        *args: Any,
        heading: str | None = None,
        config: type | None = None,
        field: str = "",
        alias: str = "",
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.heading, self.config, self.field, self._alias = heading, config, field, alias

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the flags and the help, without the alias."""
        record = super().get_help_record(ctx)
        return record and (record[0].replace(f", {self._alias}", "") if self._alias else record[0], record[1])


def _switch_or_number(value: bool | str) -> bool | int:
    """Return the value of an option that may be given alone, or with a number."""
    try:
        return True if value == _ALONE else int(value) if isinstance(value, str) else value
    except ValueError:
        raise click.BadParameter(f"{value!r} is no number") from None


class SwitchOrChoice(click.types.StringParamType):
    """The value of an option that may be given alone, which is True, or with one of some words."""

    name = "choice"

    def __init__(self, choices: Collection[str]) -> None:
        self.choices = choices

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word, True or False."""
        if isinstance(value, bool) or value == _ALONE:
            return bool(value)
        if value not in self.choices:
            self.fail(f"{value!r} is not one of {', '.join(self.choices)}", param, ctx)
        return value


def _is_value(kind: object, word: str) -> bool:
    """Return whether a word after an option that may be given alone is its value."""
    return word in kind.choices if isinstance(kind, SwitchOrChoice) else word.isdecimal()


class Command(click.Command):
    """A command whose help lists options in sections, in the order in which they are declared."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words; after an option with an optional value, one that is none is not its value."""
        kinds = {
            flag: param.type
            for param in self.params
            for flag in param.opts
            if isinstance(param.type, SwitchOrChoice)
            or getattr(param.type, "func", None) is _switch_or_number
        }
        words = list(zip(args, [*args[1:], ""], strict=False))
        alone = [
            (word, after) for word, after in words if word in kinds and not _is_value(kinds[word], after)
        ]
        args = [f"{word}={_ALONE}" if (word, after) in alone else word for word, after in words]
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            # A word too many, right after such an option, was meant as its value.
            for word, after in alone:
                kind, left_over = kinds[word], error.message.rpartition("(")[2][:-1].split()
                if isinstance(kind, SwitchOrChoice) and after in left_over:
                    what = ", ".join(kind.choices)
                    raise click.UsageError(
                        f"{word} takes one of {what} or nothing, not {after!r}", ctx
                    ) from None
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each heading."""
        sections: dict[str, list[tuple[str, str]]] = {}
        heading = "Options"
        for param in self.get_params(ctx):
            heading = getattr(param, "heading", None) or heading
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records, col_max=_FLAGS_WIDTH)


option = partial(click.option, cls=Option)


def config_options(
    config: type, *names: str, heading: str | None = None, prefix: str = "", **changes: dict[str, Any]
) -> Decorator:
    """Return a decorator that adds an option for each field of a dataclass.

    Type and default are the field's. Its metadata has ``help``, and may have ``flag`` and ``alias``,
    ``choices``, ``metavar`` and ``default_text``, which tells what a default of None stands for.

    Parameters
    ----------
    config : type
        A dataclass.
    *names : str
        Its fields, in the order of the help; by default all that have ``help``.
    heading : str, optional
        Begins a section of the help with the first of them.
    prefix : str
        Of parameters and flags, such as ``"mask_"``.
    **changes : dict
        Settings of `click.Option` that replace those of the field of that name.
    """
    fields = {field.name: field for field in dataclasses.fields(config) if "help" in field.metadata}
    hints, chosen = get_type_hints(config), names or tuple(fields)

    def decorate(command: Any) -> Any:
        # Decorators are applied from below.
        for name in reversed(chosen):
            flags, settings = _settings(fields[name], hints[name], prefix)
            settings |= {"config": config, "field": name, **changes.get(name, {})}
            settings["heading"] = heading if name == chosen[0] else None
            command = option(*flags, **settings)(command)
        return command

    return decorate


def _settings(
    field: dataclasses.Field[Any], hint: Any, prefix: str
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the declarations and the settings of a field's option."""
    facts, name = field.metadata, prefix + field.name
    flags = (facts.get("flag", "--" + name.replace("_", "-")), *filter(None, [facts.get("alias")]), name)
    help_text, of_none = facts["help"], facts.get("default_text")
    settings = {
        "help": f"{help_text}  [default: {of_none}]" if of_none else help_text,
        "default": field.default,
        "show_default": not of_none and field.default is not None,
        "alias": facts.get("alias", ""),
        "metavar": facts.get("metavar"),
    }
    if hint is bool:
        return flags, settings | {"is_flag": True, "show_default": False}
    if get_origin(hint) is tuple:
        return flags, settings | {"multiple": True, "type": str, "show_default": False}
    if bool in get_args(hint):
        return flags, settings | {"type": _switch_or_number, "show_default": False}
    kind = next((kind for kind in get_args(hint) if kind is not NoneType), hint)
    return flags, settings | {"type": click.Choice(facts["choices"]) if "choices" in facts else kind}


def make_config(config: type[Config], options: dict[str, Any], **more: Any) -> Config:
    """Return the configuration that the options of the running command set; their values leave `options`."""
    params = click.get_current_context().command.params
    own = [param for param in params if isinstance(param, Option) and param.config is config]
    return config(**{param.field: options.pop(param.name) for param in own if param.name in options} | more)


class _Output(click.Path):
    """A path that is written; an empty name, as of an unset variable, would be the current folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the name is empty; name what is to be written", param, ctx)
        return super().convert(value, param, ctx)


def output_option(help_text: str, **settings: Any) -> Decorator:
    """Return ``-o``, which names what the command writes."""
    kind = _Output(path_type=Path)
    return option("-o", "--output", **{"type": kind, "required": True, "help": help_text, **settings})


PACK = click.argument("pack", type=PACK_FILE)
FAR_PACK = click.argument("pack", type=FAR_PACK_FILE)
PACKS = click.argument("packs", metavar="PACK...", nargs=-1, required=True, type=PACK_FILE)
FAR_PACKS = click.argument("packs", metavar="PACK...", nargs=-1, required=True, type=FAR_PACK_FILE)
FORCE = option("--force", is_flag=True, help="Replace the output if it exists.")
QUIET = option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")

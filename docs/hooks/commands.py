"""Writes the pages of commands from the click objects, so that no option is described twice."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from edgeprune.cli import cli

BENCHMARKS = "bench"


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace the marks of a page by what the commands say of themselves."""
    for mark, lines in (("<!-- commands -->", _commands), ("<!-- benchmarks -->", _benchmarks)):
        if mark in markdown:
            markdown = markdown.replace(mark, "\n".join(lines()))
    return markdown


def _commands() -> Iterator[str]:
    for name, context in _subcommands(click.Context(cli, info_name="edgeprune")):
        if name != BENCHMARKS:
            yield from _command(context)


def _benchmarks() -> Iterator[str]:
    parent = click.Context(cli, info_name="edgeprune")
    group = cli.get_command(parent, BENCHMARKS)
    assert group is not None
    for _, context in _subcommands(click.Context(group, info_name=BENCHMARKS, parent=parent)):
        yield from _command(context)


def _subcommands(context: click.Context) -> Iterator[tuple[str, click.Context]]:
    group = context.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield name, click.Context(command, info_name=name, parent=context)


def _command(context: click.Context) -> Iterator[str]:
    usage = " ".join(context.command.collect_usage_pieces(context))
    yield from ("", f"## {context.command_path}", "", "```text", f"{context.command_path} {usage}", "```", "")
    yield from _prose(context.command.help or "")
    formatter = _Tables()
    context.command.format_options(context, formatter)
    for title, rows in formatter.tables.items():
        yield from ("", f"**{title}**", "", "| option | |", "| --- | --- |")
        yield from (f"| `{name}` | {_cell(text)} |" for name, text in rows)


class _Tables(click.HelpFormatter):
    """Takes the groups of options that the command would print as help."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[tuple[str, str]]] = {}
        self._title = ""

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        self._title = name
        yield

    def write_dl(self, rows: Sequence[tuple[str, str]], *_: object, **__: object) -> None:
        self.tables.setdefault(self._title, []).extend(rows)


def _prose(text: str) -> Iterator[str]:
    """Yield the paragraphs; those that click is told to leave as they are become code."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\nExample"):
            yield from ("", "```bash", inspect.cleandoc(paragraph.partition(":\n")[2]), "```")
        elif paragraph.startswith("\b"):
            yield from ("", "```text", paragraph.removeprefix("\b\n"), "```")
        else:
            yield from ("", paragraph)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")

"""Which options the user has given, and refusing those that nothing would look at."""

from __future__ import annotations

from collections.abc import Collection

import click

__all__ = ["is_given", "refuse_given"]


def is_given(name: str | None) -> bool:
    """Tell whether the user gave a parameter of the current command, be it with its default value."""
    source = click.get_current_context().get_parameter_source(name or "")
    return source is not click.core.ParameterSource.DEFAULT


def refuse_given(names: Collection[str | None], where: str) -> None:
    """Raise `UsageError` for a parameter of these names that was given; `where`: it has no effect."""
    context = click.get_current_context()
    for param in context.command.params:
        if param.name in names and is_given(param.name):
            name = param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
            raise click.UsageError(f"{name} has no effect {where}; leave it out", context)

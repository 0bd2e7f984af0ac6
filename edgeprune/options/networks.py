"""Options that name a network; code of the user's runs only where one of them names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from edgeprune_formats import ConfigError
from edgeprune_runtime.networks.code import allow_code
from edgeprune_runtime.networks.names import MODEL_NAMES, is_code

from .fields import option

__all__ = ["NETWORK", "TRUST_MODEL", "TTA"]

if TYPE_CHECKING:
    _Type = click.ParamType[str]
else:
    # Older versions of click know no parameter of it.
    _Type = click.ParamType
_KINDS = ("torchvision:NAME", "timm:NAME", "MODULE:FUNCTION")


class _Network(_Type):
    """The name of a network."""

    name = "network"
    choices = MODEL_NAMES

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name; one of code may run from now on."""
        try:
            return allow_code(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the short names that begin so."""
        return [CompletionItem(name) for name in self.choices if name.startswith(incomplete)]


def _code(value: str) -> str:
    if not is_code(value):
        raise click.BadParameter(f"{value!r} names no code, such as package.module:function")
    return allow_code(value)


NETWORK = {"type": _Network(), "metavar": f"[{'|'.join((*MODEL_NAMES, *_KINDS))}]"}
TRUST_MODEL = option(
    "--trust-model",
    type=_code,
    metavar="MODULE:FUNCTION",
    expose_value=False,
    help="Allow a run to call this function of your own code, which builds its network.",
)
TTA = click.option(
    "--tta",
    type=click.Choice(["none", "flip"]),
    default="none",
    show_default=True,
    help="Test-time augmentation: flip averages an image and its mirror image, in twice the time.",
)

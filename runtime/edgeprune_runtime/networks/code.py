"""Networks that a function of the user's builds: which functions may run, and how they are called.

The folder of a run says which function built its network. A run may come from a stranger, so that name alone
imports nothing: a function runs only where the user has named it in this process, see `allow_code`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import one_line

from .names import is_code, name_problem

__all__ = ["BuildNetwork", "allow_code", "allowed_code", "code_of", "fitting_arguments", "forget_code"]

BuildNetwork = Callable[..., Any]
# By name; None for one that is imported once it is needed.
_ALLOWED: dict[str, BuildNetwork | None] = {}


def allow_code(model: str | BuildNetwork) -> str:
    """Let a function build networks in this process, because the user has named it.

    Parameters
    ----------
    model : str or callable
        ``"package.module:function"``, or the function itself. Short names, ``torchvision:`` and ``timm:``
        need no leave.

    Returns
    -------
    str
        The name under which runs record it.

    Raises
    ------
    ConfigError
        It is a network in place of a function that builds one, or no name of a network.
    """
    if isinstance(model, str):
        problem = name_problem(model)
        if problem is not None:
            raise ConfigError(problem)
        if is_code(model):
            _ALLOWED.setdefault(model, None)
        return model
    if hasattr(model, "state_dict") and not isinstance(model, type):
        raise ConfigError("`model` is a network; pass the function that builds it")
    if not callable(model):
        raise ConfigError(
            f"`model` is {type(model).__name__}; pass a name, or a function that builds a network"
        )
    name = _name_of(model)
    _ALLOWED[name] = model
    return name


def allowed_code() -> tuple[str, ...]:
    """Return the names that `allow_code` was given, for another process that works for the same user."""
    return tuple(_ALLOWED)


def forget_code() -> None:
    """Take back what `allow_code` was given, as in a process that was given nothing."""
    _ALLOWED.clear()


def _name_of(function: BuildNetwork) -> str:
    # functools.partial has no name of its own.
    while hasattr(function, "func"):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def code_of(name: str) -> BuildNetwork:
    """Return the function of a name that was given to `allow_code`; it is imported if need be.

    Modules are looked for where Python looks, and then in the current folder.

    Raises
    ------
    ConfigError
        The user has not named it, or it cannot be imported.
    """
    if name not in _ALLOWED:
        raise ConfigError(
            f"the network is built by code, {name}, which runs only where you name it; "
            f'if you trust that code, pass `trust_model="{name}"`'
        )
    function = _ALLOWED[name]
    if function is None:
        function = _ALLOWED[name] = _imported(name)
    return function


def _imported(name: str) -> BuildNetwork:
    where, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{where}.".startswith(f"{error.name}."):
            raise _refused(name, f"importing {where} needs the module {error.name}; install it") from error
        what = f"there is no module {error.name}; install it, or run in the folder that holds it"
        raise _refused(name, what) from error
    except Exception as error:
        raise _refused(name, f"importing {where} raised {type(error).__name__}: {one_line(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise _refused(name, f"{where} has no {attribute}")
        found = getattr(found, part)
    if not callable(found) or (hasattr(found, "state_dict") and not isinstance(found, type)):
        what = f"it is of type {type(found).__name__}"
        raise _refused(name, f"{what}; name a function that builds a network")
    function: BuildNetwork = found
    return function


def fitting_arguments(function: BuildNetwork, **offered: int) -> dict[str, int]:
    """Return the arguments that a function takes: by name, and ``num_classes`` also by ``**kwargs``."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {"num_classes": offered["num_classes"]}
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        named.add("num_classes")
    return {name: value for name, value in offered.items() if name in named}


def _refused(name: str, what: str) -> ConfigError:
    return ConfigError(f'`model="{name}"`: {what}')

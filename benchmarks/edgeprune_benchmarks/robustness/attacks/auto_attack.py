"""AutoAttack by its authors' library (PyPI ``pyautoattack``), one component and one batch at a time.

The library runs its components one after the other, each on the images that still resist, in batches. Its
own resume does not work, so `edgeprune_benchmarks.robustness.evaluation` does the same with a checkpoint
after every batch, and this module hands it the components with the library's own settings. A test holds the
outcome against a direct call of the library.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["Perturb", "auto_attack_stages", "direct_call", "flags_before", "l1_apgd", "library_flags"]

Perturb = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_CE, _DLR, _TARGETED, _FAB, _SQUARE = "apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square"
_LOG = "auto-attack"
_LEAST_FOR_TARGETED_DLR = 4


def auto_attack_stages(
    victim: nn.Module, norm: str, eps: float, seed: int, device: torch.device, classes: int
) -> list[tuple[str, Perturb]]:
    """Return AutoAttack standard's components with their names, in its order.

    With fewer than ten classes every other class is a target. The targeted DLR loss needs four: of three
    classes the plain DLR loss takes its place, and of two, which that does not know, nothing does.

    Parameters
    ----------
    victim : torch.nn.Module
        Images on [0, 1] to logits.
    norm : str
        ``"Linf"``, ``"L2"`` or ``"L1"``.
    eps : float
        Budget in pixels.
    seed : int
        Of every batch, as the library uses it.
    device : torch.device
    classes : int
        That the victim tells apart, two or more.

    Returns
    -------
    list of (str, callable)
        Each maps images on [0, 1], float32 [n, C, H, W], and labels, int64 [n], to perturbed images.
    """
    library = _library(victim, norm, eps, seed, device, classes)

    def run(name: str) -> Perturb:
        def perturb(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            attack = _component(library, name, seed)
            # The library seeds torch's global generators.
            cuda = [device] if device.type == "cuda" else []
            with torch.random.fork_rng(cuda), torch.no_grad():
                found: torch.Tensor = attack.perturb(images.clone(), labels.clone())
            return found

        return perturb

    return [(name, run(name)) for name in library.attacks_to_run]


def l1_apgd(
    victim: nn.Module, eps: float, seed: int, device: torch.device, classes: int
) -> list[tuple[str, Perturb]]:
    """Return L1-APGD on the cross entropy with the settings that AutoAttack has (Croce and Hein, 2021)."""
    return auto_attack_stages(victim, "L1", eps, seed, device, classes)[:1]


def direct_call(
    victim: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    eps: float,
    seed: int,
    batch_size: int,
    device: torch.device,
) -> torch.Tensor:
    """Return which images resist AutoAttack standard under Linf by the library's own loop.

    Parameters
    ----------
    victim : torch.nn.Module
        Images on [0, 1] to logits, on `device`.
    images, labels : float32 [n, C, H, W], int64 [n]
        On the CPU.
    eps : float
        Budget in pixels.
    seed, batch_size : int
    device : torch.device

    Returns
    -------
    bool [n]
    """
    with torch.no_grad():
        classes = victim(images[:1].to(device)).shape[1]
    library = _library(victim, "Linf", eps, seed, device, classes)
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda), _kept_trace():
        _, seen = library.run_standard_evaluation(images, labels, batch_size=batch_size)
    resists: torch.Tensor = seen.cpu() == labels
    return resists


def _library(victim: nn.Module, norm: str, eps: float, seed: int, device: torch.device, classes: int) -> Any:
    from pyautoattack import AutoAttack

    with _kept_trace():
        library = AutoAttack(victim, norm=norm, eps=eps, seed=seed, device=str(device), version="standard")
    for component in (library.apgd_targeted, library.fab):
        component.n_target_classes = min(component.n_target_classes, classes - 1)
    if classes < _LEAST_FOR_TARGETED_DLR:
        without = {2: [], 3: [_DLR]}[classes]
        library.attacks_to_run = [_CE, *without, _FAB, _SQUARE]
    return library


def _component(library: Any, name: str, seed: int) -> Any:
    """Return a component, set up as the library's own loop does before each batch."""
    attack = {
        _CE: library.apgd,
        _DLR: library.apgd,
        _TARGETED: library.apgd_targeted,
        _FAB: library.fab,
        _SQUARE: library.square,
    }[name]
    attack.seed = seed
    if name in (_CE, _DLR):
        attack.loss = name.removeprefix("apgd-")
    if name == _FAB:
        attack.targeted, attack.n_restarts = True, 1
    return attack


def flags_before(victim: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> list[str]:
    """Return the library's warnings about a defense that it cannot evaluate, from a batch of images."""
    from pyautoattack import checks

    log = logging.getLogger(_LOG)
    with library_flags() as messages, torch.no_grad(), _kept_trace():
        checks.check_randomized(victim, images, labels, bs=len(images), logger=log)
        classes = checks.check_range_output(victim, images, logger=log)
        checks.check_dynamic(victim, images, False, logger=log)
        # As `_library` has it for few classes, for which this check would ask otherwise.
        targets = min(9, classes - 1)
        targeted = [_TARGETED, _FAB] if classes >= _LEAST_FOR_TARGETED_DLR else [_FAB]
        checks.check_n_classes(classes, targeted, targets, targets, logger=log)
    return messages


@contextmanager
def library_flags() -> Iterator[list[str]]:
    """Gather what the library warns of, in place of showing it."""
    heard = _Heard(logging.WARNING)
    log = logging.getLogger(_LOG)
    propagate, log.propagate = log.propagate, False
    log.addHandler(heard)
    try:
        yield heard.messages
    finally:
        log.removeHandler(heard)
        log.propagate = propagate


class _Heard(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def _kept_trace() -> Iterator[None]:
    """Put the trace function of a debugger or of coverage back, which a check of the library takes away."""
    trace = sys.gettrace()
    try:
        yield
    finally:
        sys.settrace(trace)

"""Training the end of a network alone: its last layer, or its last blocks."""

from __future__ import annotations

from torch import nn

from edgeprune_formats import ConfigError

from .layers import head_of

__all__ = ["blocks_of", "freeze", "set_training"]

# A module with more than this part of the weights is the body of a network, and no block of it.
_BODY = 0.9


def blocks_of(model: nn.Module, num_classes: int | None = None) -> list[tuple[str, list[nn.Module]]]:
    """Return the blocks of a network before its last layer, in order, each by the name of its first module.

    Blocks are the network's children with weights, in the order in which it holds them; a
    `torch.nn.Sequential` or `torch.nn.ModuleList` counts as its children, and so does a child that holds nine
    tenths of the weights, or the last layer. A layer without convolution or matrix weights, such as a norm,
    belongs to the block before it.
    So each residual block of a ResNet is one, and each inverted residual of a MobileNet.
    """
    _, head = head_of(model, num_classes)
    blocks: list[tuple[str, list[nn.Module]]] = []
    for name, module in _parts(model, "", head, _weights(model) - _weights(head)):
        if module is head or not any(True for _ in module.parameters()):
            continue
        if blocks and all(p.ndim < 2 for p in module.parameters()):
            blocks[-1][1].append(module)
        else:
            blocks.append((name, [module]))
    return blocks


def _parts(module: nn.Module, prefix: str, head: nn.Module, total: int) -> list[tuple[str, nn.Module]]:
    found: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        listed = type(child) in (nn.Sequential, nn.ModuleList)
        opened = listed or _weights(child) > _BODY * total or any(m is head for m in child.modules())
        inner = _parts(child, f"{prefix}{name}.", head, total) if opened else []
        found += inner or [(prefix + name, child)]
    return found


def _weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def freeze(model: nn.Module, how: bool | int, num_classes: int | None = None) -> None:
    """Leave only the end of a network to be trained.

    Parameters
    ----------
    model : torch.nn.Module
        Is changed: what is frozen needs no gradient.
    how : bool or int
        True for the last layer alone; k for it and the last k blocks of `blocks_of`; False changes nothing.
    num_classes : int, optional
        Outputs of the last layer.

    Raises
    ------
    ConfigError
        The last layer is not known, or the network has no more blocks than are to be trained.
    """
    if how is False:
        return
    trained: list[nn.Module] = [head_of(model, num_classes)[1]]
    if how is not True:
        blocks = blocks_of(model, num_classes)
        if how >= len(blocks):
            what = f"`freeze={how}` would freeze nothing: the network has {len(blocks)} blocks"
            raise ConfigError(f"{what}; give fewer, or leave `freeze` out")
        trained += [module for _, modules in blocks[-how:] for module in modules]
    kept = {id(p) for module in trained for p in module.parameters()}
    for parameter in model.parameters():
        # What the network itself holds fixed stays so.
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in kept)


def set_training(model: nn.Module, how: bool | int) -> None:
    """Put a network in training mode, where what is frozen keeps the statistics of batch normalization.

    With True, as `freeze` has it, dropout alone is in training mode; with k all but the frozen modules.
    """
    if how is False or how is True:
        model.train(not how)
        for module in model.modules() if how else ():
            module.train(isinstance(module, nn.Dropout))
        return
    model.train()
    for module in model.modules():
        weights = list(module.parameters())
        if weights and not any(p.requires_grad for p in weights):
            module.eval()

"""Where long work asks whether anybody still wants it: deep in a model, past code of libraries that hands nothing through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_check: ContextVar[Callable[[], None] | None] = ContextVar("decaf_check", default=None)


@contextmanager
def while_wanted(check: Callable[[], None]) -> Iterator[None]:
    """Within this, :func:`require_wanted` calls ``check`` in this thread, which raises to have the work abandoned."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def require_wanted() -> None:
    """Between two steps of long work: raise, if it is given up. What was half done is to be thrown away."""
    check = _check.get()
    if check is not None:
        check()


def require_wanted_in_layers(model: torch.nn.Module) -> None:
    """Have every layer of a model, that is every member of a list of modules, begin with :func:`require_wanted`."""
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList):
            for layer in module:
                if _before_layer not in layer._forward_pre_hooks.values():
                    layer.register_forward_pre_hook(_before_layer)


def _before_layer(module: torch.nn.Module, inputs: object) -> None:
    require_wanted()

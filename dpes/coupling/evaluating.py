"""A network in evaluation mode for a while, and afterwards as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode without gradients; afterwards it is as it was."""
    fast = torch.backends.mha.get_fastpath_enabled()  # one operation, of which torch counts nothing
    autocast = [torch.autocast(device, enabled=False) for device in ("cpu", "cuda")]
    with restored(model):
        torch.backends.mha.set_fastpath_enabled(False)
        model.eval()
        try:
            # inference mode would hide what composite operations are made of, autocast lower
            # precision
            with torch.inference_mode(False), torch.no_grad(), autocast[0], autocast[1]:
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Afterwards the attributes and buffers of a model hold what they held, its mode included."""
    attributes = {m: dict(vars(m)) for m in model.modules()}
    tables = [m._buffers for m in attributes]
    held = [(t, k, b, b.clone()) for t in tables for k, b in t.items() if b is not None]
    try:
        yield
    finally:
        for module, before in attributes.items():
            vars(module).clear()
            vars(module).update(before)
        with torch.no_grad():
            for table, name, buffer, value in held:
                table[name] = buffer
                if not torch.equal(buffer, value):
                    buffer.copy_(value)

"""What a GPU wants otherwise: draws of its own, batches that fill it, few launches, one of several
GPUs for each process.

On the CPU nothing here changes a bit. PyTorch computes convolutions in TF32 by default; nothing
here asks for deterministic kernels.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

import torch
from torch import Tensor, nn

AT_MOST = 5000  # images of an evaluation batch
SHARE = 1 / 8  # of the device's memory for one, so that several processes find room


def draws(seed: int, device: str | torch.device) -> torch.Generator:
    """A generator on the device, so that nothing drawn has to be copied there."""
    return torch.Generator(device).manual_seed(seed)


def memory(device: str | torch.device) -> int:
    """Bytes of a CUDA device, used or not, so that a batch does not depend on what else runs."""
    return torch.cuda.get_device_properties(device).total_memory


def images_at_once(device: str | torch.device, values: int, usual: int) -> int:
    """Images of an evaluation batch: ``usual``, on a GPU as many as fill a share of its memory.

    values: that layers write for one image (``Layout.activations``), in four bytes; no pass keeps
    more of them.
    """
    if torch.device(device).type != "cuda":
        return usual
    return min(AT_MOST, max(usual, int(SHARE * memory(device) / (4 * values))))


def of_worker(device: str) -> str:
    """``cuda`` in the nth process of a pool is the nth GPU, and so on in turn."""
    name = multiprocessing.current_process().name
    number = name.rpartition("-")[2]
    if device != "cuda" or multiprocessing.parent_process() is None or not number.isdecimal():
        return device
    chosen = f"cuda:{(int(number) - 1) % max(1, torch.cuda.device_count())}"
    torch.cuda.set_device(chosen)
    return chosen


def capture(network: nn.Module, x: Tensor, precision: str | None) -> None:
    """Record the forward and backward pass of a training batch like ``x`` as CUDA graphs.

    Called with such a batch in training mode, the network then launches two graphs in place of
    hundreds of kernels; every other call computes as before. Its tensors may be written to, not
    replaced. Nothing happens without CUDA.
    """
    if not x.is_cuda:
        return
    plain, training = network.forward, network.training
    statistics = {key: value.clone() for key, value in network.state_dict().items()}
    half = torch.autocast("cuda", torch.bfloat16, precision == "bfloat16", cache_enabled=False)
    with torch.cuda.device(x.device), half:
        torch.cuda.make_graphed_callables(network.train(), (x,))
    network.forward = for_batches(x.shape, network.forward, plain)  # type: ignore[method-assign]
    network.load_state_dict(statistics)  # recording runs the network a few times
    network.train(training)


def for_batches(
    shape: torch.Size, graphed: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """The recorded pass for batches of its shape, the plain one for others."""

    def forward(x: Tensor) -> Tensor:
        return graphed(x) if x.shape == shape else plain(x)

    return forward

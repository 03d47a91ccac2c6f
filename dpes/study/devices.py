"""What a GPU wants otherwise: draws of its own, batches that fill it, few launches, one of several
GPUs for each process.

On the CPU nothing here changes a bit. PyTorch computes convolutions in TF32 by default; nothing
here asks for deterministic kernels.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

import torch
from torch import Tensor

AT_MOST = 5000  # images of an evaluation batch
WORTH = 100  # training steps that pay for recording them
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
    torch.cuda.set_device(chosen := nth(device, int(number) - 1))
    return chosen


def nth(device: str, n: int) -> str:
    """``cuda`` is the nth GPU, in turn where there are fewer; any other device is itself."""
    return f"cuda:{n % max(1, torch.cuda.device_count())}" if device == "cuda" else device


class Recorded:
    """A function of tensors whose kernels are recorded once, as a CUDA graph, then launched as one.

    Inputs have the shapes of those that it was recorded with; outputs are overwritten by the next
    call. What the function reads or writes beside may be written to, not replaced. Recording calls
    it four times; raises RuntimeError for a function that cannot be recorded, such as one that
    brings a number to the host.
    """

    def __init__(self, do: Callable[..., tuple[Tensor, ...]], *inputs: Tensor):
        self.inputs = [x.clone() for x in inputs]
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(inputs[0].device):
            usual, beside = torch.cuda.current_stream(), torch.cuda.Stream()
            beside.wait_stream(usual)
            try:
                with torch.cuda.stream(beside):
                    for _ in range(3):  # so that memory is there and algorithms are chosen
                        do(*self.inputs)
                # a stream of its own: torch's is on the GPU that recorded first
                with torch.cuda.graph(self.graph, stream=beside):
                    self.outputs = do(*self.inputs)
            finally:  # a recording that fails leaves its stream behind
                torch.cuda.set_stream(usual)
            usual.wait_stream(beside)

    def fits(self, x: Tensor) -> bool:
        """Whether a first input has the shape that was recorded."""
        return x.shape == self.inputs[0].shape

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return self.outputs

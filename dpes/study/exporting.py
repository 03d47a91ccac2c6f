"""A network as ONNX: written to one file, checked against torch, and timed beside others."""

from __future__ import annotations

import contextlib
import io
import logging
import statistics
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..coupling import cost
from ..errors import DpesError, first_line, require


class ExportError(DpesError):
    """A network cannot be written, or does not compute the same."""


TOLERANCE = 1e-4  # of outputs, relative to the largest one: float32 sums in another order


def export(network: nn.Module, example: Tensor, path: str | Path) -> Path:
    """Write ``network`` in evaluation mode as one ONNX file with a free batch size; returns the
    path.

    example: a batch of inputs, float [n, ...]. Raises ``ExportError`` for a network that torch
    cannot export.
    """
    require("onnx", "onnxscript", extra="study")
    network.eval()
    example = torch.cat([example, example])[:2]  # a batch of one would be taken for a constant
    with warnings.catch_warnings(), _quiet("torch.onnx", "torch.fx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")  # of deprecations inside the exporter
        free = ({0: torch.export.Dim("batch")},)
        names: dict[str, Any] = {"input_names": ["x"], "output_names": ["y"]}
        try:
            program = torch.onnx.export(
                network, (example,), dynamo=True, dynamic_shapes=free, verbose=False, **names
            )
        except Exception as error:
            reason = first_line(error.__cause__ or error)  # its own message is advice in colours
            problem = f"{type(network).__name__}: cannot be written as ONNX ({reason})"
            raise ExportError(problem) from error
        assert program is not None
        program.save(str(path), external_data=False)
    return Path(path)


def session(path: str | Path, threads: int = 1) -> Any:
    """An onnxruntime session on the CPU. Raises ``ExportError`` for a file that is missing or
    damaged.
    """
    require("onnxruntime", extra="study")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of a class of its own for each reason
        raise ExportError(
            f"{path}: not an ONNX file that onnxruntime can read ({str(error).splitlines()[0]})"
        ) from error


@torch.no_grad()
def check(path: str | Path, network: nn.Module, x: Tensor) -> float:
    """Largest difference between onnxruntime and torch, relative to the largest output, for ``x``
    and its first image.

    Raises ``ExportError`` above ``TOLERANCE``, and for outputs that are not finite.
    """
    runtime, differences = session(path), []
    for batch in (x, x[:1]):
        want = network.eval()(batch).cpu().numpy()
        (got,) = runtime.run(None, {"x": batch.cpu().numpy()})
        largest = max(np.abs(want).max(), np.finfo(np.float32).tiny)
        differences.append(np.abs(got - want).max() / largest)
    worst = float(np.max(differences))  # of numpy, since max() of Python forgets NaN
    if not worst <= TOLERANCE:
        raise ExportError(
            f"{path}: onnxruntime differs from torch by {worst:.1e} of the largest output; do not "
            "use this file"
        )
    return worst


def compare(
    paths: Mapping[str, Path],
    networks: Mapping[str, nn.Module],
    reference: str,
    x: Tensor,
    rounds: int = 15,
) -> dict[str, dict[str, float]]:
    """Size and speed of ONNX files and their networks beside a reference: bytes, and for ``x``
    seconds and the ratio of times.

    All are timed in turn, first in onnxruntime on one thread, then in torch on as many as it is set
    to (keys ``torch_...``). A ratio is the median over rounds of pairs from the same round, low and
    high its quartiles.
    """
    inputs, runtimes = {"x": x.cpu().numpy()}, {name: session(path) for name, path in paths.items()}
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    for turn in range(rounds + 2):
        for name, runtime in runtimes.items():
            start = time.perf_counter()
            runtime.run(None, inputs)
            if turn >= 2:  # the first two warm up
                seconds[name].append(time.perf_counter() - start)
    in_onnxruntime = _ratios(seconds, reference)
    in_torch = _ratios(cost.latency(dict(networks), x, rounds), reference)
    return {
        name: {"bytes": path.stat().st_size}
        | in_onnxruntime[name]
        | {f"torch_{key}": value for key, value in in_torch[name].items()}
        for name, path in paths.items()
    }


def _ratios(seconds: Mapping[str, list[float]], reference: str) -> dict[str, dict[str, float]]:
    table = {}
    for name, times in seconds.items():
        ratios = (t / r for t, r in zip(times, seconds[reference], strict=True))
        low, median, high = statistics.quantiles(ratios, n=4)
        middle = statistics.median(times)
        table[name] = {"seconds": middle, "ratio": median, "low": low, "high": high}
    return table


@contextlib.contextmanager
def _quiet(*names: str) -> Any:
    """Silence what the exporter prints, and its loggers."""
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)

"""How important is a filter? Classical criteria, one number for each bit of a genome, as
Torch-Pruning computes them.

They look at the weights (Taylor: also at images), so whatever uses them has knowledge. A filter's
number is the mean over all layers that are coupled in its bit, divided by the mean of its group, so
that groups compare (Torch-Pruning's defaults).
"""

from __future__ import annotations

import copy
import warnings
from functools import partial

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from ..coupling.layout import Layout
from ..errors import DpesError, require, suggest

CRITERIA = ("l2", "group", "bn", "taylor", "fpgm")


class CriterionError(DpesError):
    """A criterion that does not exist, or that the network has no weights for."""


def scores(
    model: nn.Module, layout: Layout, criterion: str, x: Tensor, y: Tensor | None = None
) -> np.ndarray:
    """float64 [n_bits]: high = important.

    l2: norm of the filters of the group's first layer (Torch-Pruning, reduction ``first``). group:
    norm of all weights that leave with the filter (Fang et al. 2023). bn: scale of batch norm (Liu
    et al. 2017). taylor: weight times gradient of the loss on x, y (Molchanov et al. 2019). fpgm:
    distance to the other filters (He et al. 2019). x: images [n, c, h, w], normalised; y: classes.
    """
    if criterion not in CRITERIA:
        raise CriterionError(f"unknown criterion {criterion!r}: {suggest(criterion, CRITERIA)}")
    require("torch_pruning", extra="study")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own imports
        import torch_pruning as tp
    measure = {
        "l2": partial(tp.importance.GroupMagnitudeImportance, p=2, group_reduction="first"),
        "group": partial(tp.importance.GroupMagnitudeImportance, p=2),
        "bn": tp.importance.BNScaleImportance,
        "taylor": tp.importance.GroupTaylorImportance,
        "fpgm": tp.importance.FPGMImportance,
    }[criterion]()
    model = copy.deepcopy(model).eval()
    if criterion == "taylor" and y is not None:
        F.cross_entropy(model(x), y).backward()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(model, example_inputs=x[:1])
    modules, result = dict(model.named_modules()), np.empty(layout.n_bits)
    for group in layout.groups:
        coupled = graph.get_pruning_group(
            modules[group.name], tp.prune_conv_out_channels, idxs=list(range(group.size))
        )
        found = measure(coupled)
        if found is None or len(found) != group.size:
            problem = f"no weights to measure in group {group.name}"
            raise CriterionError(f"{criterion}: {problem}; choose another")
        result[group.bits] = found.detach().double().numpy()
    return result

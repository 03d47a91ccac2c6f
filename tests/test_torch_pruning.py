"""Torch-Pruning as an oracle: the same filters removed by its dependency graph give the same
outputs.
"""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
import torchvision
from conftest import random_genome, shake

from dpes import slim, trace
from dpes.coupling.importance import group_norms, ranking
from dpes.study import criteria, models

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    tp = pytest.importorskip("torch_pruning")

NETS = {
    "vgg-narrow": lambda: models.build("vgg-narrow"),
    "resnet20": lambda: models.build("resnet20"),
    "densenet16": lambda: models.build("densenet16"),
    "torchvision resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "torchvision mobilenet_v2": lambda: torchvision.models.mobilenet_v2(num_classes=10),
}


def pruned_by_oracle(model, layout, genome, x):
    """The model without the filters of the genome, cut by Torch-Pruning group by group."""
    theirs = copy.deepcopy(model).train()  # it traces through autograd
    graph = tp.DependencyGraph().build_dependency(theirs, example_inputs=x)
    modules = dict(theirs.named_modules())
    for group in layout.groups:
        gone = np.flatnonzero(~genome[group.bits]).tolist()
        if gone:
            layer = modules[group.name]
            graph.get_pruning_group(layer, tp.prune_conv_out_channels, idxs=gone).prune()
    return theirs.eval()


@pytest.mark.parametrize("name", NETS)
def test_same_filters_same_outputs(name, rng):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = shake(NETS[name]())
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    layout = trace(model, x[:1])
    for _ in range(3):
        genome = random_genome(layout, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = pruned_by_oracle(model, layout, genome, x)
        ours = slim(model, layout, genome)
        with torch.no_grad():
            a, b = ours(x), theirs(x)
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()
        assert {k: v.shape for k, v in ours.state_dict().items()} == {
            k: v.shape for k, v in theirs.state_dict().items()
        }


@pytest.mark.parametrize("name", ["vgg-narrow", "resnet20", "densenet16"])
def test_norms_of_coupled_weights_order_filters_as_its_group_magnitude_does(name):
    model = shake(models.build(name, seed=1))
    layout = trace(model, x := torch.randn(1, 3, 32, 32))
    theirs = criteria.scores(model, layout, "group", x)
    orders = [ranking(layout.group_of_bit, s) for s in (group_norms(model, layout), theirs)]
    assert (orders[0] == orders[1]).all()

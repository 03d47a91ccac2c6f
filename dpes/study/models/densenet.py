"""Densely connected networks for 32x32 images (Huang et al. 2017, section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import SettingsError


class DenseLayer(nn.Module):
    """BN-ReLU-conv that appends ``growth`` feature maps: x [n, inputs, h, w] -> [n, inputs +
    growth, h, w].

    With ``bottleneck`` a 1x1 convolution to 4 * growth maps comes first (the B of DenseNet-BC).
    """

    def __init__(self, inputs: int, growth: int, bottleneck: bool):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        if bottleneck:
            self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(4 * growth)
            self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)
        self.bottleneck = bottleneck

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.bn1(x)))
        if self.bottleneck:
            y = self.conv2(F.relu(self.bn2(y)))
        return torch.cat([x, y], 1)


class Transition(nn.Module):
    """BN-ReLU, 1x1 convolution, 2x2 average pooling: x [n, inputs, h, w] -> [n, filters, h / 2, w /
    2].
    """

    def __init__(self, inputs: int, filters: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, filters, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(F.relu(self.bn(x))))


class DenseNet(nn.Module):
    """Three dense blocks with two transitions between them, global average pooling, one linear
    layer.

    x: [n, channels, 32, 32] -> logits [n, n_classes].
    depth: 3 n + 4 with n layers in each block, 6 n + 4 with bottlenecks. growth: maps a layer adds
    (k in the paper).
    stem: filters of the first convolution. reduction: share of the maps that a transition keeps
    (the C of DenseNet-BC is 0.5).
    """

    def __init__(
        self,
        depth: int = 40,
        growth: int = 12,
        stem: int = 16,
        bottleneck: bool = False,
        reduction: float = 1.0,
        channels: int = 3,
        n_classes: int = 10,
    ):
        super().__init__()
        per_layer = 6 if bottleneck else 3
        if depth <= 4 or (depth - 4) % per_layer:
            raise SettingsError(
                f"depth = {depth}: a DenseNet of three blocks has {per_layer} n + 4 layers"
            )
        self.conv1 = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
        stages: list[nn.Module] = []
        filters = stem
        for block in range(3):
            for _ in range((depth - 4) // per_layer):
                stages.append(DenseLayer(filters, growth, bottleneck))
                filters += growth
            if block < 2:
                stages.append(Transition(filters, int(filters * reduction)))
                filters = int(filters * reduction)
        self.features = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(filters)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(filters, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.features(self.conv1(x))))
        return self.fc(torch.flatten(self.pool(x), 1))

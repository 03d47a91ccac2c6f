"""Residual networks of basic blocks for 32x32 images (He et al. 2016, section 4.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import SettingsError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: x [n, inputs, h, w] -> [n, filters, h / stride, w /
    stride].

    Where the shape changes the shortcut is a strided 1x1 convolution (a projection, option B), so
    that every filter on the shortcut is a weight that can be removed; with ``shortcut_norm`` a
    batch norm follows it.
    """

    def __init__(self, inputs: int, filters: int, stride: int = 1, shortcut_norm: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut, self.stride = nn.Sequential(), stride
        if stride != 1 or inputs != filters:
            self.shortcut.append(nn.Conv2d(inputs, filters, 1, bias=False))
            if shortcut_norm:
                self.shortcut.append(nn.BatchNorm2d(filters))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        # skipping pixels before the projection is what a strided projection computes; the strided
        # one corrupts memory in the backward pass of torch 2.14's CPU kernels when widths are odd,
        # inputs channels-last and threads several
        return F.relu(
            self.bn2(self.conv2(y)) + self.shortcut(x[:, :, :: self.stride, :: self.stride])
        )


class ResNet(nn.Module):
    """Three stages of (depth - 2) / 6 basic blocks with 16, 32 and 64 filters, global average
    pooling, one linear layer.

    x: [n, channels, 32, 32] -> logits [n, n_classes].
    """

    def __init__(
        self,
        depth: int = 20,
        channels: int = 3,
        n_classes: int = 10,
        width: int = 16,
        shortcut_norm: bool = True,
    ):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise SettingsError(f"depth = {depth}: a ResNet of basic blocks has 6 n + 2 layers")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = stage(width, width, blocks, 1, shortcut_norm)
        self.layer2 = stage(width, 2 * width, blocks, 2, shortcut_norm)
        self.layer3 = stage(2 * width, 4 * width, blocks, 2, shortcut_norm)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.pool(x), 1))


def stage(
    inputs: int, filters: int, blocks: int, stride: int, shortcut_norm: bool
) -> nn.Sequential:
    """Blocks of equal width, the first of which changes the shape."""
    first = BasicBlock(inputs, filters, stride, shortcut_norm)
    return nn.Sequential(first, *(BasicBlock(filters, filters) for _ in range(blocks - 1)))

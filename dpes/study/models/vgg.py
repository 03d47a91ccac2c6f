"""VGG networks with batch norm for 32x32 images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Output filters of each 3x3 convolution; "M" is a 2x2 max-pool. Names after Simonyan & Zisserman
# 2015, table 1.
VGG11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
VGG16 = (64, 64, "M", 128, 128, "M", *3 * (256,), "M", *3 * (512,), "M", *3 * (512,), "M")
VGG19 = (64, 64, "M", 128, 128, "M", *4 * (256,), "M", *4 * (512,), "M", *4 * (512,), "M")
TINY = (8, "M", 16, "M", 16, "M")


class VGG(nn.Module):
    """Convolutions by ``plan``, then one linear layer: the form common for CIFAR, without the two
    hidden linear layers.

    x: [n, channels, 32, 32] -> logits [n, n_classes]. ``width`` multiplies every filter count of
    the plan. Five max-pools leave 1x1 maps; fewer leave larger ones, all of which the linear layer
    reads.
    """

    def __init__(
        self,
        plan: tuple[int | str, ...] = VGG16,
        channels: int = 3,
        n_classes: int = 10,
        width: float = 1.0,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for step in plan:
            if isinstance(step, str):  # M
                # halves an odd side too, of images other than 32 x 32
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
                continue
            filters = int(step * width)
            # No bias: the batch norm that follows has one.
            layers += [
                nn.Conv2d(channels, filters, 3, padding=1, bias=False),
                nn.BatchNorm2d(filters),
                nn.ReLU(inplace=True),
            ]
            channels = filters
        self.features = nn.Sequential(*layers)
        side = 32 // 2 ** plan.count("M")
        self.fc = nn.Linear(channels * side * side, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.flatten(self.features(x), 1))

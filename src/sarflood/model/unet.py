"""The U-Net of Ronneberger, Fischer and Brox (2015), with batch normalisation and padding.

https://arxiv.org/abs/1505.04597. Padded 3×3 convolutions keep the size, so that skips need no
cropping; otherwise as published: two convolutions a level, 2×2 max pooling, 2×2 transposed
convolutions, skips by concatenation, 1×1 logits.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class _DoubleConvolution(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """Logits of "wet" for each pixel.

    Args:
        bands: Input channels C.
        width: Channels of the first level; level k has `width · 2**k`.
        depth: Number of 2×2 poolings.
    """

    def __init__(self, bands: int, width: int, depth: int) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _DoubleConvolution(inputs, outputs) for inputs, outputs in pairwise([bands, *channels])
        )
        upwards = channels[::-1]
        self.lift = nn.ModuleList(
            nn.ConvTranspose2d(below, above, 2, stride=2) for below, above in pairwise(upwards)
        )
        self.up = nn.ModuleList(_DoubleConvolution(2 * above, above) for above in upwards[1:])
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) normalised images to (N, H, W) logits, for any H and W.

        Sizes that are no multiple of 2**depth are padded by reflection inside, or by repetition
        where the image is smaller than the padding.
        """
        height, width = images.shape[-2:]
        step: int = 2 ** len(self.lift)
        below, right = -height % step, -width % step
        features = images
        if below or right:
            mode = "reflect" if below < height and right < width else "replicate"
            features = functional.pad(images, (0, right, 0, below), mode=mode)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else functional.max_pool2d(features, 2))
            skips.append(features)
        for lift, block, skip in zip(self.lift, self.up, skips[-2::-1], strict=True):
            features = block(torch.cat((skip, lift(features)), dim=1))
        logits: Tensor = self.head(features)[:, 0, :height, :width]
        return logits


def channels_last(network: UNet) -> UNet:
    """Return the network with its weights laid out channels last: faster on CPUs and new GPUs."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network

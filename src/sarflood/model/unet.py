"""The U-Net of Ronneberger, Fischer and Brox (2015), and its variants.

https://arxiv.org/abs/1505.04597. Padded 3×3 convolutions keep the size, so that skips need no
cropping, and each is followed by a normalisation; otherwise `plain` is as published: two
convolutions a level, 2×2 max pooling, 2×2 transposed convolutions, skips by concatenation, dropout
at the end of the contracting path, 1×1 logits.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from sarflood.params import GROUP, ModelParams, Normalisation
from sarflood.raster.patch import WET


class _GroupNorm(nn.Module):
    """Standardises each group of eight channels, of one pixel at a time.

    Wu and He (2018), https://arxiv.org/abs/1803.08494, take their statistics over all pixels as
    well: a tile of a scene would be normalised otherwise than its neighbours, and the map have
    seams. Pixel by pixel, as ConvNeXt does (Liu et al. 2022, https://arxiv.org/abs/2201.03545), a
    pixel's answer is the same in a patch, a tile and a scene.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.offset = nn.Parameter(torch.zeros(channels))

    def forward(self, features: Tensor) -> Tensor:
        pixels = features.permute(0, 2, 3, 1)
        grouped = pixels.reshape(*pixels.shape[:3], -1, GROUP)
        found = functional.layer_norm(grouped, (GROUP,)).flatten(-2)
        return (found * self.scale + self.offset).permute(0, 3, 1, 2)


def _normalised(channels: int, kind: Normalisation) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else _GroupNorm(channels)


def _convolution(inputs: int, outputs: int) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class _Block(nn.Module):
    """Two convolutions, each normalised; a residual one has a shortcut past both.

    He et al. (2016), figure 2, https://arxiv.org/abs/1512.03385; a 1×1 convolution where the number
    of channels changes.

    Args:
        inputs: Channels that come.
        outputs: Channels that go.
        params: Of the network.
        leak: Slope of the last activation below 0.
    """

    def __init__(self, inputs: int, outputs: int, params: ModelParams, leak: float = 0.0) -> None:
        super().__init__()
        self._leak = leak
        self.first = nn.Sequential(
            _convolution(inputs, outputs),
            _normalised(outputs, params.normalisation),
            nn.ReLU(inplace=True),
        )
        self.second = nn.Sequential(
            _convolution(outputs, outputs), _normalised(outputs, params.normalisation)
        )
        self.shortcut = None
        if params.variant == "residual":
            same = inputs == outputs
            self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.second(self.first(features))
        if self.shortcut is not None:
            found = found + self.shortcut(features)
        return functional.leaky_relu(found, self._leak, inplace=True)


class _Gate(nn.Module):
    """Lets through of a skip what the level below asks for.

    Oktay et al. (2018), equations 1 and 2, https://arxiv.org/abs/1804.03999, with the features from
    below brought to the skip's size first.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.skip = nn.Conv2d(channels, inner, 1, bias=False)
        self.below = nn.Conv2d(channels, inner, 1)
        self.share = nn.Conv2d(inner, 1, 1)

    def forward(self, skip: Tensor, below: Tensor) -> Tensor:
        asked = functional.relu(self.skip(skip) + self.below(below), inplace=True)
        return skip * torch.sigmoid(self.share(asked))


def _lift(below: int, above: int, params: ModelParams) -> nn.Module:
    if params.upsampling == "transposed":
        return nn.ConvTranspose2d(below, above, 2, stride=2)
    # The convolution is 1×1, so that it may come first, where there are a quarter of the pixels.
    return nn.Sequential(nn.Conv2d(below, above, 1), nn.Upsample(scale_factor=2, mode="bilinear"))


class UNet(nn.Module):
    """Logits of "wet" for each pixel, or of each class where there are several.

    `light`, for CPUs, works at half the resolution: each 2×2 pixels are folded to channels of one
    instead of the first pooling, and its logits unfolded at the end (the sub-pixel convolution of
    Shi et al. 2016, https://arxiv.org/abs/1609.05158). The levels at full resolution, few channels
    and much memory, take most of a CPU's time; depthwise separable convolutions save little there.

    With `leak` the last activation has a slope below 0 (Maas et al. 2013, Rectifier Nonlinearities
    Improve Neural Network Acoustic Models). Without, each feature that the logits are made of comes
    to say "dry" where most pixels are; "wet" is where all are 0, no gradient passes, and the logit
    is the head's bias, however sure the network could be.

    Args:
        bands: Input channels C.
        params: Width, depth and variant.
        classes: 2, which have one logit, or K > 2.

    Attributes:
        step: The pixels along one edge that the deepest level makes one of.
    """

    def __init__(self, bands: int, params: ModelParams, classes: int = 2) -> None:
        super().__init__()
        self._fold = 2 if params.variant == "light" else 1
        poolings = params.depth - (self._fold - 1)
        channels = [params.width * 2**level for level in range(poolings + 1)]
        sizes = pairwise([bands * self._fold**2, *channels])
        self.down = nn.ModuleList(_Block(inputs, outputs, params) for inputs, outputs in sizes)
        self.dropout = nn.Dropout2d(params.dropout)
        upwards = channels[::-1]
        self.lift = nn.ModuleList(_lift(below, above, params) for below, above in pairwise(upwards))
        gated = params.variant == "attention" and params.skips
        self.gate = nn.ModuleList(_Gate(above) for above in upwards[1:] if gated)
        joined = 2 if params.skips else 1
        self.up = nn.ModuleList(
            _Block(joined * above, above, params, params.leak if level == poolings else 0.0)
            for level, above in enumerate(upwards[1:], 1)
        )
        self._several = classes > 2
        logits = self._fold**2 * (classes if self._several else 1)
        self.head = nn.Conv2d(params.width, logits, 1)
        self._skips = params.skips
        self.step: int = self._fold * 2 ** len(self.lift)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) normalised images to (N, H, W) or (N, K, H, W) logits, any H and W.

        Sizes that are no multiple of `step` are padded inside.
        """
        height, width = images.shape[-2:]
        return self.levels(padded(images, self.step))[..., :height, :width]

    def levels(self, images: Tensor) -> Tensor:
        """Do as `forward` does for images whose sides are multiples of `step`."""
        features = images
        if self._fold > 1:
            features = functional.pixel_unshuffle(features, self._fold)
            features = features.contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else functional.max_pool2d(features, 2))
            skips.append(features)
        features = self.dropout(features)
        for level, (lift, block) in enumerate(zip(self.lift, self.up, strict=True)):
            features = lift(features)
            if self._skips:
                skip = skips[-2 - level]
                skip = self.gate[level](skip, features) if len(self.gate) else skip
                features = torch.cat((skip, features), dim=1)
            features = block(features)
        logits: Tensor = self.head(features)
        if self._fold > 1:
            logits = functional.pixel_shuffle(logits, self._fold)
        return logits if self._several else logits[:, 0]


def padded(images: Tensor, step: int) -> Tensor:
    """Pad (N, C, H, W) images below and at the right to multiples of `step`.

    By reflection, or by repetition where an image is smaller than the padding.
    """
    height, width = images.shape[-2:]
    below, right = -height % step, -width % step
    if not (below or right):
        return images
    mode = "reflect" if below < height and right < width else "replicate"
    return functional.pad(images, (0, right, 0, below), mode=mode)


def mean_logits(
    network: Callable[[Tensor], Tensor], inputs: Tensor, flips: int, step: int
) -> Tensor:
    """Average the logits of an image over its flips, and turns, each brought back into place.

    It is padded before, so that a flipped image pools the same pixels together, and so a tile the
    same as the whole scene.

    Args:
        network: Maps (N, C, H, W) to (N, H, W) or (N, K, H, W).
        inputs: Normalised images, (N, C, H, W).
        flips: 1, the image alone; 2, also flipped across; 4, also down; 8, also transposed.
        step: `UNet.step`.
    """
    height, width = inputs.shape[-2:]
    inputs = padded(inputs, step)
    total: Tensor | None = None
    for number in range(flips):
        axes = [axis for bit, axis in ((1, -1), (2, -2)) if number & bit]
        image = inputs.flip(axes) if axes else inputs
        if number & 4:
            image = image.transpose(-1, -2).contiguous(memory_format=torch.channels_last)
        logits = network(image)
        if number & 4:
            logits = logits.transpose(-1, -2)
        logits = logits.flip(axes) if axes else logits
        total = logits if total is None else total.add_(logits)
    if total is None:
        raise ValueError(f"flips is {flips}; at least 1")
    return (total.div_(flips) if flips > 1 else total)[..., :height, :width]


def wet_logits(logits: Tensor) -> Tensor:
    """Return the logit of "wet" against all other classes; its sigmoid is their softmax's.

    Args:
        logits: (N, H, W), which are that already, or (N, K, H, W) of K classes.

    Returns:
        (N, H, W).
    """
    if logits.ndim == 3:
        return logits
    others = torch.cat((logits[:, :WET], logits[:, WET + 1 :]), dim=1)
    return logits[:, WET] - others.logsumexp(dim=1)


def channels_last(network: UNet) -> UNet:
    """Return the network with its weights laid out channels last: faster on CPUs and new GPUs."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network

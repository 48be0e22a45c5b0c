from __future__ import annotations

import pytest
import torch
from torch import nn

from sarflood.model.unet import UNet


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (256, 31), (17, 16)])
def test_any_size_gives_a_logit_for_each_pixel(size: tuple[int, int]) -> None:
    network = UNet(bands=2, width=4, depth=4).eval()
    with torch.inference_mode():
        assert network(torch.randn(2, 2, *size)).shape == (2, *size)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (8, 8)])
def test_images_smaller_than_the_padding_are_answered(size: tuple[int, int]) -> None:
    network = UNet(bands=1, width=2, depth=4).eval()
    with torch.inference_mode():
        logits = network(torch.randn(1, 1, *size))
    assert logits.shape == (1, *size)
    assert torch.isfinite(logits).all()


def test_padding_leaves_what_is_far_from_it_as_it_was() -> None:
    torch.manual_seed(0)
    network = UNet(bands=1, width=2, depth=2).eval()
    image = torch.randn(1, 1, 128, 128)
    with torch.inference_mode():
        whole, cropped = network(image), network(image[..., :125, :126])
    torch.testing.assert_close(cropped[:, :80, :80], whole[:, :80, :80])


def test_each_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    network = UNet(bands=3, width=4, depth=3)
    (network(torch.randn(2, 3, 32, 32)) ** 2).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_published_size_has_the_published_channels() -> None:
    network = UNet(bands=1, width=64, depth=4)
    convolutions = [
        (module.in_channels, module.out_channels)
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    # Ronneberger et al. (2015), figure 1, with one class in place of two
    assert convolutions == [
        *[(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)],
        *[(512, 1024), (1024, 1024)],
        *[(1024, 512), (512, 512), (512, 256), (256, 256), (256, 128), (128, 128), (128, 64)],
        *[(64, 64), (64, 1)],
    ]
    lifts = [module for module in network.modules() if isinstance(module, nn.ConvTranspose2d)]
    assert [lift.out_channels for lift in lifts] == [512, 256, 128, 64]


def test_a_patch_is_answered_alike_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    network = UNet(bands=2, width=4, depth=2).eval()
    images = torch.randn(3, 2, 40, 40)
    with torch.inference_mode():
        torch.testing.assert_close(network(images)[1:2], network(images[1:2]))

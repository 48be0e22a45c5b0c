"""Every variant of the U-Net is asked for the same; `Variant` is inherited by one class each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import network_params
from torch import nn

from sarflood.model.unet import UNet, channels_last, mean_logits, wet_logits


class Variant:
    """What each variant must do; a subclass names its settings."""

    settings: ClassVar[dict[str, Any]] = {}

    def network(self, bands: int = 2, classes: int = 2, **changes: Any) -> UNet:
        torch.manual_seed(0)
        return UNet(bands, network_params(**(self.settings | changes)), classes).eval()

    @pytest.mark.parametrize("size", [(32, 32), (37, 50), (256, 33), (32, 41)])
    def test_any_size_gives_a_logit_for_each_pixel(self, size: tuple[int, int]) -> None:
        with torch.inference_mode():
            assert self.network(depth=4)(torch.randn(2, 2, *size)).shape == (2, *size)

    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (8, 8)])
    def test_images_smaller_than_the_padding_are_answered(self, size: tuple[int, int]) -> None:
        with torch.inference_mode():
            logits = self.network(depth=4)(torch.randn(1, 2, *size))
        assert logits.shape == (1, *size)
        assert torch.isfinite(logits).all()

    def test_several_classes_have_a_logit_each(self) -> None:
        with torch.inference_mode():
            assert self.network(classes=5)(torch.randn(2, 2, 40, 36)).shape == (2, 5, 40, 36)

    def test_each_parameter_gets_a_gradient(self) -> None:
        network = self.network(bands=3).train()
        (network(torch.randn(2, 3, 32, 32)) ** 2).sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    def test_the_same_seed_gives_the_same_gradients(self) -> None:
        slopes = []
        for _ in range(2):
            network = self.network().train()
            (network(torch.randn(2, 2, 32, 32)) ** 2).sum().backward()
            slopes.append([parameter.grad for parameter in network.parameters()])
        for one, other in zip(*slopes, strict=True):
            assert one is not None
            assert torch.equal(one, torch.as_tensor(other))

    def test_a_patch_is_answered_alike_alone_and_in_a_batch(self) -> None:
        network, images = self.network(), torch.randn(3, 2, 40, 40)
        with torch.inference_mode():
            torch.testing.assert_close(network(images)[1:2], network(images[1:2]))

    def test_padding_leaves_what_is_far_from_it_as_it_was(self) -> None:
        network, image = self.network(), torch.randn(1, 2, 128, 128)
        with torch.inference_mode():
            whole, cropped = network(image), network(image[..., :125, :126])
        torch.testing.assert_close(cropped[:, :80, :80], whole[:, :80, :80])

    def test_saved_weights_answer_bit_by_bit_alike(self, tmp_path: Path) -> None:
        network, images = self.network(), torch.randn(2, 2, 48, 48)
        save_file(network.state_dict(), tmp_path / "weights.safetensors")
        other = UNet(2, network_params(**self.settings)).eval()
        other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        with torch.inference_mode():
            assert torch.equal(network(images), other(images))

    def test_it_can_be_exported(self) -> None:
        network, images = self.network(), torch.randn(1, 2, 32, 48)
        exported = torch.export.export(network, (images,)).module()
        torch.testing.assert_close(exported(images), network(images))

    def test_half_precision_comes_near_to_whole(self) -> None:
        network, images = channels_last(self.network()), torch.randn(2, 2, 32, 32)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            half = network(images)
        with torch.inference_mode():
            whole = network(images)
        assert half.dtype == torch.bfloat16
        rounding = 2**-8 * whole.abs().mean()
        assert (half.float() - whole).abs().mean() < 0.1 * whole.std() + rounding


class TestPlain(Variant):
    def test_the_published_size_has_the_published_channels(self) -> None:
        network = self.network(bands=1, width=64, depth=4)
        convolutions = [
            (module.in_channels, module.out_channels)
            for module in network.modules()
            if isinstance(module, nn.Conv2d)
        ]
        # Ronneberger et al. (2015), figure 1, with one class in place of two
        assert convolutions == [
            *[(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)],
            *[(256, 512), (512, 512), (512, 1024), (1024, 1024)],
            *[(1024, 512), (512, 512), (512, 256), (256, 256), (256, 128), (128, 128)],
            *[(128, 64), (64, 64), (64, 1)],
        ]
        lifts = [module for module in network.modules() if isinstance(module, nn.ConvTranspose2d)]
        assert [lift.out_channels for lift in lifts] == [512, 256, 128, 64]


class TestGroupNormalisation(Variant):
    settings: ClassVar = {"normalisation": "group", "width": 8}

    @pytest.mark.parametrize(("channels", "groups"), [(8, 1), (16, 2)])
    def test_each_pixel_is_standardised_in_groups_of_eight_channels(
        self, channels: int, groups: int
    ) -> None:
        values = np.random.default_rng(0).normal(3, 2, (2, groups, channels // groups, 5, 7))
        mean, deviation = values.mean(axis=2, keepdims=True), values.std(axis=2, keepdims=True)
        expected = ((values - mean) / deviation).reshape(2, channels, 5, 7)
        network = UNet(2, network_params(normalisation="group", width=channels))
        normalise = dict(network.named_modules())["down.0.first.1"]
        found = normalise(torch.from_numpy(values).flatten(1, 2).float())
        np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-3)

    def test_a_patch_has_the_same_gradient_whatever_else_is_in_the_batch(self) -> None:
        network = self.network().train()
        images = torch.randn(2, 2, 32, 32)
        alone, both = network(images[:1]), network(images)
        torch.testing.assert_close(both[:1], alone)


class TestBilinear(Variant):
    settings: ClassVar = {"upsampling": "bilinear"}


class TestDropout(Variant):
    settings: ClassVar = {"dropout": 0.5}

    def test_it_drops_in_training_alone(self) -> None:
        network, images = self.network(normalisation="group", width=8), torch.randn(1, 2, 32, 32)
        assert torch.equal(network(images), network(images))
        assert not torch.equal(network.train()(images), network(images))


class TestWithoutSkips(Variant):
    settings: ClassVar = {"skips": False}

    def test_what_is_finer_than_the_deepest_level_does_not_come_through(self) -> None:
        """Of a checkerboard, which pooling wipes out, a network with skips knows the phase."""
        board = torch.zeros(1, 2, 64, 64)
        board[..., ::2, ::2] = board[..., 1::2, 1::2] = 1.0
        phases = []
        for skips in (False, True):
            network = self.network(skips=skips)
            with torch.inference_mode():
                logits = network(board)[0, 16:48, 16:48]
            spread = logits[::2, ::2].mean() - logits[::2, 1::2].mean()
            phases.append(float(spread.abs() / logits.std().clamp(min=1e-6)))
        assert phases[1] > 2 * phases[0]


class TestLeak(Variant):
    settings: ClassVar = {"leak": 0.1}

    @pytest.mark.parametrize("leak", [0.0, 0.1])
    def test_without_it_nothing_is_learnt_where_no_feature_is_positive(self, leak: float) -> None:
        network, images = self.network(leak=leak), torch.randn(1, 2, 32, 32)
        last = f"up.{len(network.up) - 1}.second.1.bias"
        nn.init.constant_(dict(network.named_parameters())[last], -1e4)
        logits = network(images)
        first = next(iter(network.parameters()))
        (slope,) = torch.autograd.grad(logits.sum(), first)
        assert (float(logits.detach().std()) > 0) == (leak > 0)
        assert (float(slope.abs().max()) > 0) == (leak > 0)


class TestResidual(Variant):
    settings: ClassVar = {"variant": "residual"}


class TestAttention(Variant):
    settings: ClassVar = {"variant": "attention"}

    def test_gates_can_close(self) -> None:
        network, images = self.network(), torch.randn(1, 2, 32, 32)
        before = network(images)
        for name, parameter in network.named_parameters():
            if name.startswith("gate.") and name.endswith("share.bias"):
                nn.init.constant_(parameter, -1e4)
        assert not torch.allclose(network(images), before)


class TestLight(Variant):
    settings: ClassVar = {"variant": "light"}


def test_the_logit_of_water_has_the_probability_of_its_softmax() -> None:
    logits = 5 * torch.randn(2, 4, 8, 8)
    wet = wet_logits(logits)
    torch.testing.assert_close(torch.sigmoid(wet), logits.softmax(dim=1)[:, 1])
    assert torch.isfinite(wet_logits(1e4 * logits)).all()
    alone = torch.randn(2, 8, 8)
    assert wet_logits(alone) is alone


@pytest.mark.parametrize("flips", [2, 4, 8])
def test_an_answer_averaged_over_flips_is_flipped_with_the_image(flips: int) -> None:
    torch.manual_seed(0)
    network = UNet(2, network_params(depth=1)).eval()
    images = torch.randn(1, 2, 32, 40)
    with torch.inference_mode():
        alone, mean = (mean_logits(network, images, number, network.step) for number in (1, flips))
        assert torch.equal(alone, network(images))
        assert not torch.allclose(mean, alone)
        pairs = [(images.flip(-1), mean.flip(-1))]
        if flips >= 4:
            pairs.append((images.flip(-2), mean.flip(-2)))
        if flips == 8:
            pairs.append((images.transpose(-1, -2), mean.transpose(-1, -2)))
        for changed, expected in pairs:
            answer = mean_logits(network, changed, flips, network.step)
            torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("flips", [2, 8])
def test_an_image_of_any_size_is_pooled_alike_whichever_way_it_is_flipped(flips: int) -> None:
    """What is far from the border is as in a larger image, as tiles are beside a whole scene."""
    torch.manual_seed(0)
    network = UNet(2, network_params(depth=4)).eval()
    image = torch.randn(1, 2, 208, 405)
    with torch.inference_mode():
        whole = mean_logits(network, image, flips, network.step)
        part = mean_logits(network, image[..., :320], flips, network.step)
    assert whole.shape == (1, 208, 405)
    torch.testing.assert_close(part[..., :160], whole[..., :160], atol=1e-5, rtol=1e-4)

"""The VAE: a stock ``AutoencoderKLWan`` of half a million numbers, and how training runs it.

One latent is 16 x 16 pixels of 4 frames. Pictures are learned first: the kernels in time look at
the present frame only, and the stride in time keeps the last frame of four. Then the encoder
stays, and the decoder learns the frames between from the latents around them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import (
    WanCausalConv3d,
    patchify,
    unpatchify,
)
from torch import Tensor
from torch.nn import functional

from demo_model.drawing import draw, random_layout
from demo_model.scenes import Scene

CHANNELS = 16
STRIDE = 16
TIME_STRIDE = 4
_WIDTH = 32
"""A multiple of 32: other widths are several times slower on a processor."""
_PATCH = 4


class FastOnPictures:
    """While entered, convolutions of a single frame without history are done in two dimensions.

    The same numbers for a third of the work: only the last kernel slice in time sees data.
    """

    def __enter__(self) -> None:
        self._slow = WanCausalConv3d.forward
        slow = self._slow

        def forward(conv: WanCausalConv3d, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
            is_plain = conv.kernel_size[1:] in ((3, 3), (1, 1)) and conv.stride[0] == 1
            if cache_x is None and x.shape[2] == 1 and is_plain:
                kernel, pad = conv.weight[:, :, -1], (conv.kernel_size[1] - 1) // 2
                return functional.conv2d(x[:, :, 0], kernel, conv.bias, padding=pad).unsqueeze(2)
            done: Tensor = slow(conv, x, cache_x)
            return done

        WanCausalConv3d.forward = forward

    def __exit__(self, *_: object) -> None:
        WanCausalConv3d.forward = self._slow


def new_vae() -> AutoencoderKLWan:
    """Random weights, with time laid out as the head of this file says."""
    vae = AutoencoderKLWan(
        z_dim=CHANNELS,
        base_dim=_WIDTH,
        dim_mult=[1, 1, 1],
        num_res_blocks=0,
        is_residual=False,
        patch_size=_PATCH,
        in_channels=3 * _PATCH**2,
        out_channels=3 * _PATCH**2,
        temperal_downsample=[True, True],
        scale_factor_spatial=STRIDE,
        scale_factor_temporal=TIME_STRIDE,
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
    )
    with torch.no_grad():
        for name, module in vae.named_modules():
            if name.endswith("time_conv"):
                _keep_last(module)
            elif isinstance(module, torch.nn.Conv3d) and module.kernel_size[0] == 3:
                module.weight[:, :, :2] = 0
        vae.quant_conv.weight[CHANNELS:].zero_()
        vae.quant_conv.bias[CHANNELS:].fill_(-4.6)  # a posterior of deviation 0.1
    return vae


@torch.no_grad()
def whiten(vae: AutoencoderKLWan, pictures: Tensor) -> None:
    """Begin with the principal components of patches: pictures (N, 3, 1, H, W) of flat colours.

    Their pixels are nearly the same numbers, and edges are learned late without this.
    """
    patches = patchify(pictures, _PATCH).permute(0, 2, 3, 4, 1).reshape(-1, 3 * _PATCH**2)
    mean = patches.mean(0)
    values, axes = torch.linalg.eigh(torch.cov(patches.T))
    values, axes = values.flip(0)[:_WIDTH].clamp(min=0), axes.flip(1)[:, :_WIDTH]
    scale = (values + 2e-3).sqrt()
    first, last = vae.encoder.conv_in, vae.decoder.conv_out
    inward = (axes / scale).T
    first.weight.mul_(0.02)
    first.weight[:, :, 2, 1, 1] += inward
    first.bias.copy_(-inward @ mean)
    last.weight.mul_(0.02)
    last.weight[:, :, 2, 1, 1] += axes * scale
    last.bias.copy_(mean)


@torch.no_grad()
def freeze_time(vae: AutoencoderKLWan) -> None:
    """Make the stride in time exactly "the last frame of four": pictures may have bent it."""
    for name, module in vae.encoder.named_modules():
        if name.endswith("time_conv"):
            module.weight.zero_()
            module.bias.zero_()
            _add_identity(module)


def decode_unclamped(vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
    """As ``vae.decode``, but for its clamp, outside of which nothing is learned."""
    vae.clear_cache()
    hidden = vae.post_quant_conv(latents)
    frames = []
    for at in range(hidden.shape[2]):
        vae._conv_idx = [0]
        frames.append(
            vae.decoder(
                hidden[:, :, at : at + 1],
                feat_cache=vae._feat_map,
                feat_idx=vae._conv_idx,
                first_chunk=at == 0,
            )
        )
    vae.clear_cache()
    video: Tensor = unpatchify(torch.cat(frames, 2), _PATCH)
    return video


def encode_pictures(vae: AutoencoderKLWan, frames: Tensor) -> Tensor:
    """Latents (N, C, F, H/16, W/16), before scaling, of key frames (N, 3, F, H, W)."""
    count, kept = frames.shape[0], frames.shape[2]
    with torch.no_grad(), FastOnPictures():
        flat = frames.transpose(1, 2).flatten(0, 1).unsqueeze(2)
        means = vae.encode(flat).latent_dist.mean
    latents: Tensor = means.squeeze(2).unflatten(0, (count, kept)).transpose(1, 2)
    return latents


def draw_all(
    scenes: list[Scene], dice: np.random.Generator, *, height: int, width: int, moments: Tensor
) -> tuple[Tensor, Tensor]:
    """Frames (N, 3, F, H, W) and masks (N, 1, F, H, W) of *scenes* in random layouts."""
    drawn = [
        draw(scene, random_layout(scene, dice), height=height, width=width, moments=moments)
        for scene in scenes
    ]
    return torch.stack([frames for frames, _ in drawn]), torch.stack([mask for _, mask in drawn])


def weights_of(mask: Tensor) -> Tensor:
    """What each pixel counts: the object and its surroundings five times."""
    return 1 + 4 * functional.max_pool3d((mask > 0).float(), (1, 7, 7), 1, (0, 3, 3))


def loss_of(made: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Absolute error and half the squared one, weighted."""
    off = made - wanted
    return (weights * (off.abs() + 0.5 * off * off)).sum() / (weights.sum() * off.shape[1])


def kernels_of(named: list[tuple[str, Tensor]]) -> list[Tensor]:
    """The parameters for Muon: convolutions and matrices, but for narrow ones."""
    return [one for _, one in named if one.ndim >= 2 and one.shape[0] > 3 and one[0].numel() > 3]


def _keep_last(conv: Any) -> None:
    conv.weight.mul_(0.1)
    conv.bias.zero_()
    _add_identity(conv)


def _add_identity(conv: Any) -> None:
    outputs, inputs = conv.weight.shape[:2]
    identity = torch.eye(inputs)
    if outputs != inputs:
        identity = torch.cat([identity, identity])
    conv.weight[:, :, 2, 0, 0] += identity

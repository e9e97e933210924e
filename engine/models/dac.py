"""The audio VAE: a DAC autoencoder with a continuous latent, names as released.

Source: DAC (arXiv 2306.06546) for the network, MOVA (arXiv 2602.08794) for the Gaussian latent in place of codebooks.
Shapes: B batch, T samples, N latents (one per hop), C latent channels.
"""

from __future__ import annotations

import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from engine.models.options import refuse_unbuilt, require


class AudioVAE(ModelMixin, ConfigMixin):
    """Mono samples in [-1, 1] <-> latents, one per `hop` samples.

    The codebook options stand in released configs and have no meaning while `continuous` is true.
    """

    @register_to_config
    def __init__(
        self,
        encoder_dim: int,
        encoder_rates: list[int],
        latent_dim: int,
        decoder_dim: int,
        decoder_rates: list[int],
        sample_rate: int,
        continuous: bool = True,
        use_weight_norm: bool = False,
        n_codebooks: int = 9,
        codebook_size: int = 1024,
        codebook_dim: int = 8,
        quantizer_dropout: bool = False,
    ) -> None:
        super().__init__()
        require("AudioVAE", continuous, "continuous=False (codebooks) is not built")
        refuse_unbuilt("AudioVAE", use_weight_norm=use_weight_norm)
        require(
            "AudioVAE",
            math.prod(encoder_rates) == math.prod(decoder_rates),
            f"encoder_rates {list(encoder_rates)} and decoder_rates {list(decoder_rates)} give different hops",
        )
        require(
            "AudioVAE",
            decoder_dim % 2 ** len(decoder_rates) == 0,
            f"decoder_dim {decoder_dim} cannot be halved {len(decoder_rates)} times",
        )
        self.hop = math.prod(encoder_rates)
        self.sample_rate = sample_rate
        self.encoder = Encoder(encoder_dim, list(encoder_rates), latent_dim)
        self.quant_conv = nn.Conv1d(latent_dim, 2 * latent_dim, 1)
        self.post_quant_conv = nn.Conv1d(latent_dim, latent_dim, 1)
        self.decoder = Decoder(latent_dim, decoder_dim, list(decoder_rates))

    def encode(self, samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 1, T) samples -> mean and log-variance of the latents, each (B, C, T // hop)."""
        mean, logvar = self.quant_conv(self.encoder(samples)).chunk(2, 1)
        return mean, logvar

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, C, N) latents -> (B, 1, N * hop) samples in [-1, 1]."""
        return self.decoder(self.post_quant_conv(latents))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples through the mean latent and back."""
        return self.decode(self.encode(samples)[0])


class Encoder(nn.Module):
    def __init__(self, dim: int, rates: list[int], latent_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv1d(1, dim, 7, padding=3)]
        for rate in rates:
            layers.append(Down(dim, rate))
            dim *= 2
        layers += [Snake(dim), nn.Conv1d(dim, latent_dim, 3, padding=1)]
        self.block = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class Decoder(nn.Module):
    def __init__(self, latent_dim: int, dim: int, rates: list[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv1d(latent_dim, dim, 7, padding=3)]
        for rate in rates:
            layers.append(Up(dim, rate))
            dim //= 2
        layers += [Snake(dim), nn.Conv1d(dim, 1, 7, padding=3), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x)


class Down(nn.Module):
    """Residual units, then a strided convolution to twice the width."""

    def __init__(self, dim: int, rate: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *(Residual(dim, dilation) for dilation in (1, 3, 9)),
            Snake(dim),
            nn.Conv1d(dim, 2 * dim, 2 * rate, rate, padding=math.ceil(rate / 2)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class Up(nn.Module):
    """A transposed convolution to half the width, then residual units."""

    def __init__(self, dim: int, rate: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Snake(dim),
            nn.ConvTranspose1d(dim, dim // 2, 2 * rate, rate, padding=math.ceil(rate / 2), output_padding=rate % 2),
            *(Residual(dim // 2, dilation) for dilation in (1, 3, 9)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class Residual(nn.Module):
    def __init__(self, dim: int, dilation: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Snake(dim),
            nn.Conv1d(dim, dim, 7, dilation=dilation, padding=3 * dilation),
            Snake(dim),
            nn.Conv1d(dim, dim, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x)


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha: a periodic activation with one frequency per channel (arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + (self.alpha * x).sin().square() / (self.alpha + 1e-9)

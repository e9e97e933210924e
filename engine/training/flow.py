"""Joint flow matching of picture and sound. MOVA (arXiv 2602.08794), section 3; rectified flow (arXiv 2209.03003).

x_sigma = (1 - sigma) x + sigma noise, velocity = noise - x; picture and sound each at their own sigma. A side at sigma
0 is given, not learned: its loss does not count. Shapes: B batch, C channels, F/H/W latent frames, height, width,
N audio latents, S text tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import UMT5EncoderModel

from engine.attention import use_products
from engine.models import AudioTower, Bridge, DualTower, VideoTower
from engine.models.dual_tower import JointBlock
from engine.schedule import shift_sigma
from engine.training.naming import Naming
from engine.training.text import encode, padding_counts

HIGH, LOW = "high", "low"
NEAR_NOISE = 0.98
"""Above this sigma even the mean of a picture drowns; what fills the picture is decided here, by the words alone."""


@dataclass(frozen=True)
class NoiseLevels:
    """How the noise levels of a batch are drawn.

    Shares of the four kinds of samples; what is left of 1 is drawn independently for both sides:

    Attributes:
        equal: both sides at one u, as in sampling: what teaches the two to find each other.
        picture_given: the picture clean or nearly so, for sound made for a picture.
        sound_given: the sound clean or nearly so.
        nearly: sigma below which "nearly clean" ends; half of the given samples are quite clean.
        video_shift, audio_shift: sigma shifts of the draw.
    """

    equal: float = 0.5
    picture_given: float = 0.22
    sound_given: float = 0.13
    nearly: float = 0.15
    video_shift: float = 3.0
    audio_shift: float = 3.0

    def draw(
        self, count: int, generator: torch.Generator, expert: str | None, boundary: float, near_noise: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Sigmas of picture and sound, (count,) float32 each.

        Args:
            expert: "high" or "low" draws the picture's sigma on its side of ``boundary``; None from all of it.
            near_noise: share of samples, except of the low expert, whose sigma is above NEAR_NOISE.
        """
        edge = self._unshifted(boundary)
        low, high = {HIGH: (edge, 1.0), LOW: (0.0, edge), None: (0.0, 1.0)}[expert]
        kind, own, other = torch.rand(3, count, generator=generator)
        nearly = torch.rand(count, generator=generator) * self.nearly
        nearly = nearly * (torch.rand(count, generator=generator) < 0.5)
        u = low + (high - low) * own
        if near_noise and expert != LOW:
            above = self._unshifted(NEAR_NOISE)
            near = torch.rand(count, generator=generator) < near_noise
            u = torch.where(near, above + (1.0 - above) * own, u)
        video = shift_sigma(u, self.video_shift)
        audio = torch.where(kind < self.equal, shift_sigma(u, self.audio_shift), shift_sigma(other, self.audio_shift))
        if expert != HIGH:
            picture_given = (kind >= self.equal) & (kind < self.equal + self.picture_given)
            video = torch.where(picture_given, nearly, video)
        sound_given = kind >= 1.0 - self.sound_given
        return video, torch.where(sound_given, nearly, audio)

    def _unshifted(self, sigma: float) -> float:
        """The u whose picture sigma this is."""
        return sigma / (self.video_shift - (self.video_shift - 1.0) * sigma)


@dataclass(frozen=True)
class Networks:
    """What a checkpoint folder holds of the towers."""

    high: VideoTower
    low: VideoTower
    audio: AudioTower
    bridge: Bridge


class JointObjective(nn.Module):
    """Both experts, the text encoder and the loss, as one module.

    Args:
        networks: both experts share audio tower and bridge.
        latent_fps: latent frames per second.
        audio_weight: of the sound's loss; the picture's is 1.
        first_weight: of the first latent frame, against 1 of each other one. It alone shows how well a given first
            frame is kept, and is else one part in many.
        naming_weight: of the text encoder's own loss, see ``Naming``; 0 leaves it out.
        text_length: tokens that the networks see in use; padding up to there is counted, not computed.
    """

    def __init__(
        self,
        networks: Networks,
        text_encoder: UMT5EncoderModel,
        latent_fps: float,
        audio_weight: float,
        first_weight: float = 1.0,
        naming_weight: float = 0.0,
        text_length: int = 512,
    ) -> None:
        super().__init__()
        self.networks = networks
        self.high = DualTower(networks.high, networks.audio, networks.bridge)
        self.low = DualTower(networks.low, networks.audio, networks.bridge)
        self.text_encoder = text_encoder
        self.latent_fps = latent_fps
        self.audio_weight = audio_weight
        self.first_weight = first_weight
        self.naming_weight = naming_weight
        self.naming = Naming(text_encoder.config.d_model) if naming_weight else None
        self.text_length = text_length

    def forward(
        self,
        video: Tensor,
        audio: Tensor,
        condition: Tensor,
        ids: Tensor,
        mask: Tensor,
        video_sigma: Tensor,
        audio_sigma: Tensor,
        video_noise: Tensor,
        audio_noise: Tensor,
        named: Tensor,
        expert: str = LOW,
        bridge: float = 1.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """video (B, C, F, H, W), audio (B, C', N), condition (B, stride + C, F, H, W), ids and mask (B, S),
        sigmas (B,), noises like their latents, named as of ``named_in`` -> loss and figures."""
        text = encode(self.text_encoder, ids, mask)
        errors = self.errors(
            video, audio, condition, text, video_sigma, audio_sigma, video_noise, audio_noise, expert, bridge
        )
        weights = torch.ones_like(errors[0])
        weights[:, 0] = self.first_weight
        video_loss = _mean_where((weights * errors[0]).sum(1) / weights.sum(1), video_sigma > 0)
        audio_loss = _mean_where(errors[1], audio_sigma > 0)
        figures = {"video": video_loss.detach(), "audio": audio_loss.detach()}
        loss = video_loss + self.audio_weight * audio_loss
        if self.naming is not None:
            naming_loss, figures["named"] = self.naming(text, mask, named)
            loss = loss + self.naming_weight * naming_loss
        return loss, figures

    def errors(
        self,
        video: Tensor,
        audio: Tensor,
        condition: Tensor,
        text: Tensor,
        video_sigma: Tensor,
        audio_sigma: Tensor,
        video_noise: Tensor,
        audio_noise: Tensor,
        expert: str = LOW,
        bridge: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Mean square errors of the velocities: (B, F) of every latent frame of the picture, (B,) of the sound.

        ``text`` are embeddings as of ``encode``; the others as in ``forward``.
        """
        length = text.shape[1]
        assert length not in (video[0, 0].numel(), audio.shape[2]), "text must not be as long as another sequence"
        network = self.high if expert == HIGH else self.low
        s, r = video_sigma.view(-1, 1, 1, 1, 1), audio_sigma.view(-1, 1, 1)
        with use_products(padding_counts(length, self.text_length).to(video.device)):
            video_v, audio_v = network(
                torch.cat(((1 - s) * video + s * video_noise, condition), 1),
                (1 - r) * audio + r * audio_noise,
                1000.0 * video_sigma.double(),
                1000.0 * audio_sigma.double(),
                text,
                self.latent_fps,
                bridge,
                bridge,
            )
        video_error = (video_v.float() - (video_noise - video)).square().mean((1, 3, 4))
        audio_error = (audio_v.float() - (audio_noise - audio)).square().flatten(1).mean(1)
        return video_error, audio_error


def _mean_where(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the counted ones; 0, with a gradient of 0, where none is."""
    counted = counted.to(values)
    return (values * counted).sum() / counted.sum().clamp_min(1.0)


@torch.no_grad()
def aim_bridge(network: DualTower, bias: float = 1.5, shrink: float = 0.7, spread: float = 0.03) -> None:
    """Starts the bridge as a look at the own moment.

    With a constant bias on q and k the rotary clock alone decides the attention, which then peaks where both clocks
    agree. Left to find this by itself, the bridge needs many times as long.

    Args:
        bias: of all q and k.
        shrink: factor on their weights.
        spread: deviation of the output weights.
    """
    for block in joint_blocks(network):
        for conditioner in (block.a2v, block.v2a):
            if conditioner is None:
                continue
            inner: Any = conditioner.inner
            for layer in (inner.q, inner.k):
                layer.weight.mul_(shrink)
                layer.bias.fill_(bias)
            nn.init.normal_(inner.o.weight, std=spread)
            nn.init.zeros_(inner.o.bias)


@torch.no_grad()
def shun_padding(network: DualTower, bias: float) -> None:
    """Starts every attention to the text with its queries turned away from padding.

    Texts are padded with zeros to hundreds of tokens, which all have one key. From chance weights the padding takes
    nearly all attention, and a network learns few of the words: those of the object, and none of its surroundings.

    Args:
        bias: of the queries against the padding's key; the query's own part has a deviation of about 0.6.
    """
    blocks = list(joint_blocks(network))
    for ends, parts in (
        (network.video_ends, [block.video for block in blocks]),
        (network.audio_ends, [block.audio for block in blocks]),
    ):
        embedding: Any = ends.text_embedding
        first, _, last = embedding
        nn.init.zeros_(first.bias)  # words have little in common with padding, which the last bias alone stands for
        nn.init.normal_(last.bias, std=0.02)
        for part in parts:
            if part is None:
                continue
            attention: Any = part.cross_attn
            nn.init.zeros_(attention.k.bias)
            attention.q.bias.copy_(-bias * attention.norm_k(attention.k(last.bias)))


@torch.no_grad()
def open_gates(network: DualTower) -> None:
    """Starts every block with open gates and the head at zero: training from nothing, not from released weights."""
    towers: tuple[Any, ...] = (network.video_ends, network.audio_ends)
    for ends in towers:
        nn.init.zeros_(ends.head.head.weight)
        nn.init.zeros_(ends.head.head.bias)
        nn.init.normal_(ends.time_projection[1].weight, std=0.02)
        nn.init.zeros_(ends.time_projection[1].bias)
    for block in joint_blocks(network):
        parts: tuple[Any, ...] = (block.video, block.audio)
        for part in parts:
            if part is not None:
                part.modulation[:, [2, 5]] = 1.0


def joint_blocks(network: DualTower) -> Iterator[JointBlock]:
    """The blocks, by their own type."""
    for block in network.blocks:
        assert isinstance(block, JointBlock)
        yield block

"""A model that was loaded: its networks, how they are carried, and what each of them does alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from engine.attention import use_backend
from engine.decode import decode_audio, decode_video
from engine.encode import (
    TextEmbedding,
    condition_latents,
    encode_frames,
    encode_samples,
    encode_text,
    frames_tensor,
    picture_tensor,
)
from engine.guided import Split, compute_dtype, velocity
from engine.inputs import Picture, open_picture
from engine.media import fit_image
from engine.memory.backends import backend_of, settled
from engine.memory.carry import Carrier, PlannedCarrier
from engine.memory.packed import PackedStore, packed_store
from engine.memory.plan import Plan
from engine.models import AudioVAE, DualTower
from engine.output import in_form
from engine.profile import ModelProfile, read_profile
from engine.request import ClipRequest, SizeRules, check_number
from engine.schedule import ScheduleConfig
from engine.texts import StoredTextEncoder, TextCache
from engine.weights import check_channels, load_component, load_schedule, load_tokenizer, read_index


class LoadedModel:
    """The networks of one model folder. Make one with `from_pretrained`.

    Attributes:
        high_noise, low_noise: the experts; they share the audio tower and the bridge.
        video_vae, audio_vae, tokenizer: as in the folder. schedule, boundary_ratio, profile, rules: what it says.
        stride: frames of a latent frame. carrier: moves the networks; see `engine.memory.carry`.
        attention: name of the kernel, "native" for torch's own choice. split: shares guidance branches with others.
        texts: keeps embeddings; None encodes every time.
    """

    def __init__(
        self,
        high_noise: DualTower,
        low_noise: DualTower,
        video_vae: AutoencoderKLWan,
        audio_vae: AudioVAE,
        text_encoder: UMT5EncoderModel | StoredTextEncoder,
        tokenizer: PreTrainedTokenizerFast,
        schedule: ScheduleConfig,
        boundary_ratio: float,
        profile: ModelProfile | None = None,
    ) -> None:
        self.high_noise = high_noise
        self.low_noise = low_noise
        self.video_vae = video_vae
        self.audio_vae = audio_vae
        self._text = text_encoder
        self.texts: TextCache | None = None
        self._text_maker = ""
        self.tokenizer = tokenizer
        self.schedule = schedule
        self.boundary_ratio = boundary_ratio
        self.profile = profile or ModelProfile()
        self.carrier = Carrier(self)
        self.attention = "native"
        self.split: Split | None = None
        config = video_vae.config
        self.stride = int(config.scale_factor_temporal)
        self.rules = SizeRules(
            multiple=int(config.scale_factor_spatial) * math.lcm(*high_noise.patch_size[1:]),
            stride=self.stride,
            sizes=self.profile.sizes,
        )
        width = text_encoder.width if isinstance(text_encoder, StoredTextEncoder) else text_encoder.config.d_model
        check_channels(high_noise, low_noise, video_vae, audio_vae, width)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        torch_dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        plan: Plan | None = None,
        texts: TextCache | None = None,
        packed: Path | None = None,
    ) -> Self:
        """Loads any folder in the released layout.

        Args:
            folder: holds `model_index.json` and a folder per component.
            torch_dtype: of towers, bridge and text encoder; both VAEs stay in float32.
            device: where everything goes.
            plan: says all of that better; see `engine.memory.plan.make_plan`. Networks then stay in main memory or in
                their files, and are on the device while they are needed there.
            texts: keeps the embeddings of texts; the text encoder is not even read for those it has.
            packed: a folder that keeps blocks in 8 bits, where the plan reads them from disk; None packs at every use.

        Raises:
            CheckpointError: the folder does not hold exactly what its configs promise.
        """
        index, device = read_index(folder), torch.device(device)
        stored: torch.dtype | None = torch_dtype
        if plan is not None:
            device = torch.device("cpu")
            stored = getattr(torch, plan.dtype) if plan.plain and plan.device == "cpu" else None

        def load(name: str, dtype: torch.dtype | None = stored) -> Any:
            return load_component(index.folder, name, dtype, device)

        audio, bridge = load("audio_dit"), load("dual_tower_bridge")
        pipe = cls(
            high_noise=DualTower(load("video_dit"), audio, bridge),
            low_noise=DualTower(load("video_dit_2"), audio, bridge),
            video_vae=load("video_vae", torch.float32),
            audio_vae=load("audio_vae", torch.float32),
            text_encoder=StoredTextEncoder(index.folder, stored, device),
            tokenizer=load_tokenizer(index.folder),
            schedule=load_schedule(index.folder),
            boundary_ratio=index.boundary_ratio,
            profile=read_profile(index.folder),
        )
        pipe.texts = texts
        if plan is not None:
            keep = packed is not None and plan.experts == "swap" and plan.weights != plan.dtype
            pipe.carry(plan, packed_store(packed, index.folder, plan) if packed is not None and keep else None)
        return pipe

    @property
    def text_encoder(self) -> UMT5EncoderModel:
        """The text encoder, read from the model folder where it was not needed before."""
        return self._text.model if isinstance(self._text, StoredTextEncoder) else self._text

    @property
    def text_loads(self) -> int:
        """How often the text encoder was read from the model folder."""
        return self._text.loads if isinstance(self._text, StoredTextEncoder) else 0

    def carry(self, plan: Plan, packed: PackedStore | None = None) -> Self:
        """Runs by `plan` from now on; the networks must have been loaded for one (see `from_pretrained`)."""
        plain = plan.plain and plan.device == "cpu"
        self.carrier = Carrier(self, plan) if plain else PlannedCarrier(self, plan, packed)
        network = self.high_noise
        widths = {network.video_head_dim, network.audio_head_dim, network.bridge_head_dim}
        dtype = getattr(torch, plan.dtype)
        self.attention = settled(plan.attention, torch.device(plan.device), dtype, tuple(sorted(widths)))
        return self

    def kernels(self) -> AbstractContextManager[None]:
        """Within it, attention is computed as the plan says."""
        return nullcontext() if self.attention == "native" else use_backend(backend_of(self.attention))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.carrier.device

    def to(self, device: str | torch.device) -> Self:
        """Moves every network to `device`."""
        for network in (self.high_noise, self.low_noise, self.video_vae, self.audio_vae):
            network.to(device)
        self._text.to(torch.device(device))
        return self

    def compile(self, **options: Any) -> Self:
        """Compiles the joint blocks of both experts (one compilation serves all layers of a kind)."""
        for expert in (self.high_noise, self.low_noise):
            expert.compile_repeated_blocks(**options)
        return self

    def expert_at(self, video_timestep: float) -> DualTower:
        """The high-noise expert down to the boundary, the low-noise one below."""
        high = video_timestep >= self.boundary_ratio * self.schedule.train_timesteps
        return self.high_noise if high else self.low_noise

    def encode_prompt(self, prompts: str | Sequence[str]) -> TextEmbedding:
        """Texts -> embeddings (B, 512, text_dim) with what was cut."""
        texts = [prompts] if isinstance(prompts, str) else list(prompts)

        def encode(texts: list[str]) -> TextEmbedding:
            with self.carrier.text():
                return encode_text(self.tokenizer, self.text_encoder, texts)

        if self.texts is None or not isinstance(self._text, StoredTextEncoder):
            return encode(texts)
        self._text_maker = self._text_maker or self._text.fingerprint()
        plan, device = self.carrier.plan, self.carrier.text_device
        dtype = self._text.dtype if plan is None else plan.dtype
        maker = f"{self._text_maker} {str(dtype).removeprefix('torch.')} {device.type} {torch.__version__}"
        return self.texts.embedded(maker, texts, encode)

    def encode_condition(
        self, image: Picture = None, last_image: Picture = None, *, num_frames: int, height: int, width: int
    ) -> torch.Tensor:
        """Mask and latents of the known frames, (1, stride + C, F, H, W)."""
        return self.known_frames(open_picture(image), open_picture(last_image), None, num_frames, height, width)

    def encode_video(self, frames: Any) -> torch.Tensor:
        """Frames (F, H, W, 3) or (B, F, H, W, 3), uint8 or float in [0, 1] -> latents for `given_video_latents`."""
        tensor = frames_tensor(frames)
        ClipRequest("", tensor.shape[4], tensor.shape[3], tensor.shape[2]).checked(self.rules)
        with self.carrier.pictures():
            return encode_frames(self.video_vae, tensor)

    def encode_audio(self, samples: Any, rate: int) -> torch.Tensor:
        """Mono samples (T,) or (B, T) in [-1, 1] at `rate` Hz -> latents for `given_audio_latents`."""
        with self.carrier.pictures():
            return encode_samples(self.audio_vae, samples, int(check_number("rate", rate, 1, 768_000)))

    @torch.inference_mode()
    def decode(
        self,
        video_latents: torch.Tensor,
        audio_latents: torch.Tensor,
        samples: int | None = None,
        output_type: str = "np",
        tiled: bool = False,
    ) -> tuple[Any, Any]:
        """Latents -> (frames, audio) in the form of `output_type`; the sound is cut to `samples`."""
        with self.carrier.pictures():
            tiled = tiled or self.carrier.tiles != "none"
            frames = decode_video(self.video_vae, video_latents, tiled).add_(1).div_(2)  # (B, 3, F, H, W)
            sound = decode_audio(self.audio_vae, audio_latents, samples)
        return in_form(frames, sound, output_type)

    @torch.inference_mode()
    def velocity(
        self,
        video_latents: torch.Tensor,
        audio_latents: torch.Tensor,
        condition: torch.Tensor,
        prompt_embeds: torch.Tensor,
        timestep: float | torch.Tensor,
        audio_timestep: float | torch.Tensor | None = None,
        fps: float = 24.0,
        bridge_scale: float | torch.Tensor = 1.0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One network evaluation, by the expert of the (first) video timestep.

        Args:
            video_latents, audio_latents: (B, C, F, H, W) and (B, C', N).
            condition: (B, stride + C, F, H, W). prompt_embeds: (B, S, text_dim).
            timestep, audio_timestep: 0..1000, one or (B,); the audio's defaults to the video's.
            bridge_scale: strength of both directions, one or (B,); 0 is off.

        Returns:
            Velocities in the latents' shapes, float32.
        """
        batch, device = video_latents.shape[0], self.device
        t_video = _timesteps(timestep, batch, device)
        t_audio = t_video if audio_timestep is None else _timesteps(audio_timestep, batch, device)
        network = self.expert_at(float(t_video[0]))
        scale: float | torch.Tensor = bridge_scale
        if isinstance(bridge_scale, torch.Tensor) and bridge_scale.numel() > 1:
            scale = bridge_scale.to(device, compute_dtype(network)).view(-1, 1, 1)
        elif isinstance(bridge_scale, torch.Tensor):
            scale = float(bridge_scale)
        with self.carrier.experts(network), self.kernels():
            return velocity(
                network,
                video_latents.to(device),
                audio_latents.to(device),
                condition.to(device),
                prompt_embeds.to(device),
                t_video,
                t_audio,
                self.latent_fps(fps),
                scale,
                scale,
            )

    def latent_fps(self, fps: float) -> float:
        """Latent frames per second of a clip at `fps`."""
        return fps / self.stride

    def known_frames(
        self,
        first: Image.Image | None,
        last: Image.Image | None,
        given: torch.Tensor | None,
        frames: int,
        height: int,
        width: int,
    ) -> torch.Tensor:
        """Mask and latents of one clip's known frames; `given`: its picture's latents (1, C, F, H, W), where known."""
        pictures = [None if p is None else picture_tensor(fit_image(p, width, height)) for p in (first, last)]
        with self.carrier.pictures():
            if pictures[0] is None and given is not None:
                # The picture is known, so its first frame is: a white one would contradict it.
                pictures[0] = decode_video(self.video_vae, given[:, :, :1])[0, :, 0].cpu()
            tiled = self.carrier.tiles == "both"
            return condition_latents(self.video_vae, pictures[0], pictures[1], frames, height, width, tiled)


def _timesteps(value: float | torch.Tensor, batch: int, device: torch.device) -> torch.Tensor:
    """One timestep, or one a clip, as (batch,) float64."""
    tensor = torch.as_tensor(value, dtype=torch.float64, device=device).reshape(-1)
    return tensor.expand(batch) if tensor.numel() == 1 else tensor

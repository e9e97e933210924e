"""The public face: a model folder, a picture and a sentence in; frames and their sound out."""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from PIL import Image
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from engine.attention import use_backend
from engine.decode import decode_audio, decode_video, require_finite
from engine.denoise import Guidance, Known, Split, StepCallback, StepState, compute_dtype, denoise, hearing, velocity
from engine.encode import (
    TextEmbedding,
    condition_latents,
    encode_frames,
    encode_samples,
    encode_text,
    frames_tensor,
    picture_tensor,
)
from engine.errors import CheckpointError, RequestError
from engine.media import fit_image, load_image
from engine.memory.backends import backend_of, settled
from engine.memory.carry import Carrier, PlannedCarrier
from engine.memory.packed import PackedStore
from engine.memory.plan import Plan
from engine.models import AudioVAE, DualTower
from engine.profile import ModelProfile, read_profile
from engine.request import SOUND_STEPS, ClipRequest, SizeRules, auto_size, check_integer, check_number
from engine.schedule import ScheduleConfig, Step, paired_steps
from engine.step_cache import StepCache
from engine.texts import StoredTextEncoder, TextCache, file_digest
from engine.timing import ClipLength
from engine.weights import WEIGHT_STEM, load_component, load_schedule, load_tokenizer, read_index, weight_files

Picture = Image.Image | np.ndarray | str | Path | None
log = logging.getLogger(__name__)
OUTPUT_TYPES = ("np", "pil", "pt", "latent")


@dataclass(frozen=True)
class MovaOutput:
    """One run's clips.

    Attributes:
        frames: (B, F, H, W, 3) float32 in [0, 1] for "np"; lists of pictures for "pil"; (B, F, 3, H, W) for "pt";
            None for "latent".
        audio: (B, samples) float32, exactly as long as the frames; a tensor for "pt", None for "latent".
        sample_rate: of the audio, Hz.
        fps: frames per second.
        video_latents, audio_latents: (B, C, F, H, W) and (B, C', N), float32.
        seeds: one a clip.
        truncated: one a clip: the prompt was longer than the model reads, and its end was cut.
    """

    frames: Any
    audio: Any
    sample_rate: int
    fps: float
    video_latents: torch.Tensor
    audio_latents: torch.Tensor
    seeds: list[int] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)


class MovaPipeline:
    """A loaded model. Make one with `from_pretrained`; call it as often as you like."""

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
        self._check_channels()

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        torch_dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        plan: Plan | None = None,
        texts: TextCache | None = None,
        packed: Path | None = None,
    ) -> MovaPipeline:
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

    def carry(self, plan: Plan, packed: PackedStore | None = None) -> MovaPipeline:
        """Runs by `plan` from now on; the networks must have been loaded for one (see `from_pretrained`)."""
        plain = plan.plain and plan.device == "cpu"
        self.carrier = Carrier(self, plan) if plain else PlannedCarrier(self, plan, packed)
        network = self.high_noise
        widths = {network.video_head_dim, network.audio_head_dim, network.bridge_head_dim}
        dtype = getattr(torch, plan.dtype)
        self.attention = settled(plan.attention, torch.device(plan.device), dtype, tuple(sorted(widths)))
        return self

    def _kernels(self) -> AbstractContextManager[None]:
        """Within it, attention is computed as the plan says."""
        return nullcontext() if self.attention == "native" else use_backend(backend_of(self.attention))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.carrier.device

    def to(self, device: str | torch.device) -> MovaPipeline:
        """Moves every network to `device`."""
        for network in (self.high_noise, self.low_noise, self.video_vae, self.audio_vae):
            network.to(device)
        self._text.to(torch.device(device))
        return self

    def compile(self, **options: Any) -> MovaPipeline:
        """Compiles the joint blocks of both experts (one compilation serves all layers of a kind)."""
        for expert in (self.high_noise, self.low_noise):
            expert.compile_repeated_blocks(**options)
        return self

    def expert_at(self, video_timestep: float) -> DualTower:
        """The high-noise expert down to the boundary, the low-noise one below."""
        high = video_timestep >= self.boundary_ratio * self.schedule.train_timesteps
        return self.high_noise if high else self.low_noise

    @torch.inference_mode()
    def __call__(
        self,
        prompt: str | Sequence[str],
        image: Picture | Sequence[Picture] = None,
        last_image: Picture | Sequence[Picture] = None,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int = 193,
        fps: float = 24.0,
        num_inference_steps: int = 50,
        guidance_scale: float = 5.0,
        bridge_guidance_scale: float = 1.0,
        video_shift: float | None = None,
        audio_shift: float | None = None,
        a2v_scale: float = 1.0,
        v2a_scale: float = 1.0,
        seed: int | Sequence[int] | None = None,
        video_latents: torch.Tensor | None = None,
        audio_latents: torch.Tensor | None = None,
        given_video_latents: torch.Tensor | None = None,
        given_audio_latents: torch.Tensor | None = None,
        output_type: str = "np",
        callback_on_step_end: StepCallback | None = None,
        callback_on_stage: Callable[[str], None] | None = None,
        tiled_decode: bool = False,
        step_cache: float | None = None,
        sound_steps: int = 1,
    ) -> MovaOutput:
        """Makes one clip per prompt.

        Args:
            prompt: one text, or a list for a batch.
            image, last_image: first and last frame (path, picture or (H, W, 3) uint8), or None; one, or one per
                prompt. They are resized and centre-cropped. Without a first frame it is white.
            negative_prompt: None takes the model's own.
            height, width: pixels; both None picks the model's size closest to the picture's aspect.
            num_frames: 4k+1. fps: frames per second.
            guidance_scale: text guidance; 1 means one pass and no negative prompt.
            bridge_guidance_scale: guidance by the bridge (paper eq. 6); 1 is off.
            video_shift, audio_shift: sigma shifts; None takes the scheduler config's.
            a2v_scale, v2a_scale: strength of sound-to-picture and picture-to-sound; 0 switches a direction off.
            seed: one number (clip i of a batch gets seed + i), one per prompt, or None for a random one.
            video_latents, audio_latents: starting noise instead of the seed's.
            given_video_latents, given_audio_latents: a side that is known: held clean, returned unchanged.
            output_type: "np", "pil", "pt" or "latent".
            callback_on_step_end: gets a `StepState` after every step; return False to stop the run (`Cancelled`).
            callback_on_stage: gets "text", "picture", "denoise" and "decode" as each begins.
            tiled_decode: decode the picture in tiles, where memory is short.
            step_cache: threshold below which most of a step is left out (`engine.step_cache`); None computes all.
            sound_steps: parts in which the sound takes each step, at the cost of the audio tower; 1 is off.

        Raises:
            RequestError: a value is not valid; the message names the nearest valid one.
            MediaError: a picture cannot be read.
            NumericsError: latents, frames or samples became NaN or infinite.
            Cancelled: the callback asked to stop.
        """
        if output_type not in OUTPUT_TYPES:
            raise RequestError(f"output_type {output_type!r} is not one of {', '.join(OUTPUT_TYPES)}")
        stage = callback_on_stage or (lambda name: None)
        self.carrier.short = False
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        count = len(prompts)
        if count == 0:
            raise RequestError("prompt list is empty; give at least one prompt")
        first, last = _per_clip("image", image, count), _per_clip("last_image", last_image, count)
        negatives = _per_clip(
            "negative_prompt", self.profile.negative_prompt if negative_prompt is None else negative_prompt, count
        )
        firsts, lasts = [_picture(p) for p in first], [_picture(p) for p in last]
        width, height = self._size(width, height, firsts[0] or lasts[0], given_video_latents)
        seeds = _seeds(seed, count)
        requests = [
            ClipRequest(
                prompts[i],
                width,
                height,
                num_frames,
                fps,
                negatives[i],
                num_inference_steps,
                guidance_scale,
                bridge_guidance_scale,
                self.schedule.shift if video_shift is None else video_shift,
                self.schedule.shift if audio_shift is None else audio_shift,
                a2v_scale,
                v2a_scale,
                seeds[i],
            ).checked(self.rules)
            for i in range(count)
        ]
        r = requests[0]
        length = ClipLength(r.frames, r.fps, self.audio_vae.sample_rate, self.audio_vae.hop, self.stride)
        if given_video_latents is not None and given_audio_latents is not None:
            raise RequestError("given_video_latents and given_audio_latents are both set; there is nothing to generate")
        video, audio = self._starting_latents(
            requests, length, video_latents, audio_latents, given_video_latents, given_audio_latents
        )

        stage("text")
        guided = r.guidance != 1 or r.bridge_guidance != 1

        def read_prompts() -> tuple[TextEmbedding, torch.Tensor | None]:
            texts = self.encode_prompt([q.prompt for q in requests])
            return texts, self.encode_prompt([q.negative_prompt for q in requests]).embeds if guided else None

        positive, negative = self.carrier.attempt("text", read_prompts)

        stage("picture")

        def read_pictures() -> torch.Tensor:
            return torch.cat(
                [
                    self._condition(firsts[i], lasts[i], given_video_latents, i, r.frames, r.height, r.width)
                    for i in range(count)
                ]
            )

        condition = self.carrier.attempt("picture", read_pictures)

        stage("denoise")
        video, audio = self._denoised(
            video,
            audio,
            condition,
            positive.embeds,
            negative,
            paired_steps(r.steps, r.video_shift, r.audio_shift, self.schedule),
            Guidance(r.guidance, r.bridge_guidance, r.a2v_scale, r.v2a_scale),
            self.latent_fps(r.fps),
            Known(given_video_latents is not None, given_audio_latents is not None),
            callback_on_step_end,
            step_cache,
            check_integer("sound steps", sound_steps, 1, SOUND_STEPS),
        )

        frames = sound = None
        if output_type != "latent":
            stage("decode")
            frames, sound = self.carrier.attempt(
                "decode", lambda: self.decode(video, audio, length.samples, output_type, tiled_decode)
            )
        return MovaOutput(
            frames,
            sound,
            self.audio_vae.sample_rate,
            r.fps,
            video,
            audio,
            [q.seed for q in requests],
            positive.truncated,
        )

    def _denoised(
        self,
        video: torch.Tensor,
        audio: torch.Tensor,
        condition: torch.Tensor,
        positive: torch.Tensor,
        negative: torch.Tensor | None,
        steps: list[Step],
        guidance: Guidance,
        latent_fps: float,
        known: Known,
        callback: StepCallback | None,
        threshold: float | None,
        sound_steps: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The velocity loop. An attempt that ran out of memory goes on from its last whole step."""
        done: list[Any] = [0, video, audio]
        device = self.device
        cache = None if threshold is None else StepCache(check_number("step cache", threshold, 0.0, 1.0))

        def caching() -> AbstractContextManager[Any]:
            return nullcontext() if cache is None else cache.on(self.high_noise, self.low_noise)

        def refining() -> AbstractContextManager[None]:
            return hearing(self.high_noise, self.low_noise) if sound_steps > 1 else nullcontext()

        def remember(state: StepState) -> bool | None:
            done[:] = state.step, state.video_latents, state.audio_latents
            return None if callback is None else callback(state)

        def run() -> tuple[torch.Tensor, torch.Tensor]:
            first = self.expert_at(0.0 if known.video else steps[done[0]].video_timestep)
            with self.carrier.experts(first), caching(), refining(), self._kernels():
                return denoise(
                    self.expert_at,
                    done[1].to(device),
                    done[2].to(device),
                    condition.to(device),
                    positive.to(device),
                    None if negative is None else negative.to(device),
                    steps[done[0] :],
                    guidance,
                    latent_fps,
                    known,
                    remember,
                    self.carrier.step,
                    cache,
                    self.split,
                    sound_steps,
                )

        latents = self.carrier.attempt("denoise", run)
        if cache is not None:
            log.info("step cache: %d evaluations computed, %d left out", cache.computed, cache.skipped)
        return latents

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
        loaded = [_picture(p) for p in (image, last_image)]
        pictures = [None if p is None else picture_tensor(fit_image(p, width, height)) for p in loaded]
        with self.carrier.pictures():
            return condition_latents(self.video_vae, pictures[0], pictures[1], num_frames, height, width)

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
        if output_type == "pt":
            return frames.transpose(1, 2), sound
        array = frames.permute(0, 2, 3, 4, 1).cpu().numpy()
        if output_type == "pil":
            pictures = [[Image.fromarray(np.rint(f * 255).astype(np.uint8)) for f in clip] for clip in array]
            return pictures, sound.cpu().numpy()
        return np.ascontiguousarray(array), sound.cpu().numpy()

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
        with self.carrier.experts(network), self._kernels():
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

    def _size(
        self, width: int | None, height: int | None, image: Image.Image | None, given: torch.Tensor | None
    ) -> tuple[int, int]:
        if (width is None) != (height is None):
            raise RequestError("width and height go together; give both, or neither for the model's own size")
        if width is not None and height is not None:
            return width, height
        if given is not None:
            spatial = int(self.video_vae.config.scale_factor_spatial)
            return given.shape[4] * spatial, given.shape[3] * spatial
        return auto_size(None if image is None else image.size, self.profile.sizes)

    def _starting_latents(
        self,
        requests: list[ClipRequest],
        length: ClipLength,
        video: torch.Tensor | None,
        audio: torch.Tensor | None,
        given_video: torch.Tensor | None,
        given_audio: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise or given latents of both sides, checked for shape and finiteness, float32 on the device."""
        r, spatial = requests[0], int(self.video_vae.config.scale_factor_spatial)
        channels = int(self.video_vae.config.z_dim)
        v_shape = (channels, length.latent_frames, r.height // spatial, r.width // spatial)
        a_shape = (int(self.audio_vae.config.latent_dim), length.audio_latents)
        sides = []
        for name, shape, noise, given in (
            ("video", v_shape, video, given_video),
            ("audio", a_shape, audio, given_audio),
        ):
            side = given if given is not None else noise
            if side is None:
                side = torch.stack([noise_for(q.seed, name, shape) for q in requests])
            expected = (len(requests), *shape)
            if tuple(side.shape) != expected:
                label = f"given_{name}_latents" if given is not None else f"{name}_latents"
                raise RequestError(f"{label} have shape {tuple(side.shape)}; this clip needs {expected}")
            sides.append(require_finite(side.to(self.device, torch.float32), f"the {name} latents brought in"))
        return sides[0], sides[1]

    def _condition(
        self,
        first: Image.Image | None,
        last: Image.Image | None,
        given: torch.Tensor | None,
        index: int,
        frames: int,
        height: int,
        width: int,
    ) -> torch.Tensor:
        pictures = [None if p is None else picture_tensor(fit_image(p, width, height)) for p in (first, last)]
        if pictures[0] is None and given is not None:
            # The picture is known, so its first frame is: a white one would contradict it.
            with self.carrier.pictures():
                pictures[0] = decode_video(self.video_vae, given[index : index + 1, :, :1])[0, :, 0].cpu()
        with self.carrier.pictures():
            tiled = self.carrier.tiles == "both"
            return condition_latents(self.video_vae, pictures[0], pictures[1], frames, height, width, tiled)

    def _check_channels(self) -> None:
        """Towers and VAEs must fit each other; a mismatch is named."""
        z = int(self.video_vae.config.z_dim)
        video, audio = self.high_noise.config.video, self.high_noise.config.audio
        words = self._text.width if isinstance(self._text, StoredTextEncoder) else self._text.config.d_model
        wanted: list[tuple[str, Any, Any]] = [
            ("video_dit in_dim", video["in_dim"], 2 * z + self.stride),
            ("video_dit out_dim", video["out_dim"], z),
            ("audio_dit in_dim", audio["in_dim"], self.audio_vae.config.latent_dim),
            ("audio_dit out_dim", audio["out_dim"], self.audio_vae.config.latent_dim),
            ("video_dit text_dim", video["text_dim"], words),
            ("audio_dit text_dim", audio["text_dim"], words),
        ]
        other = self.low_noise.config.video
        wanted += [(f"video_dit_2 {n}", other[n], video[n]) for n in ("in_dim", "out_dim", "text_dim")]
        wanted.append(("video_dit_2 patch_size", list(other["patch_size"]), list(video["patch_size"])))
        for name, found, needed in wanted:
            if found != needed:
                raise CheckpointError(f"{name} is {found}, but the other components need {needed}")


def packed_store(folder: Path, model: Path, plan: Plan) -> PackedStore:
    """Of the blocks of `model` as `plan` stores them, known by their files' content."""
    content = hashlib.sha256(f"{plan.weights} {plan.dtype} {torch.__version__}".encode())
    for name in ("video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge"):
        content.update((model / name / "config.json").read_bytes())
        for file in weight_files(model / name, WEIGHT_STEM):
            content.update(file_digest(file))
    return PackedStore(folder, content.hexdigest())


def noise_for(seed: int, side: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal noise of one side ("video" or "audio"), float32 on the CPU: the same on every device.

    Each side has its own generator, so that a longer picture does not change the sound's noise.
    """
    digest = hashlib.sha256(f"{side}:{seed}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.randn(shape, generator=generator)


def _picture(source: Picture) -> Image.Image | None:
    """A picture by path, as PIL or as (H, W, 3) uint8, to RGB."""
    if source is None:
        return None
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise RequestError(f"image array is {source.dtype} {source.shape}; expected uint8 (H, W, 3)")
        return Image.fromarray(source)
    return load_image(source)


def _seeds(seed: int | Sequence[int] | None, count: int) -> list[Any]:
    if seed is None:
        return [secrets.randbelow(2**32) for _ in range(count)]
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        if len(seed) != count:
            raise RequestError(f"{len(seed)} seeds for {count} prompts; give one, or {count}")
        return list(seed)
    return [seed + i if isinstance(seed, int) else seed for i in range(count)]


def _per_clip(name: str, value: Any, count: int) -> list[Any]:
    if isinstance(value, list | tuple):
        if len(value) != count:
            raise RequestError(f"{len(value)} values of {name} for {count} prompts; give one, or {count}")
        return list(value)
    return [value] * count


def _timesteps(value: float | torch.Tensor, batch: int, device: torch.device) -> torch.Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float64, device=device).reshape(-1)
    return tensor.expand(batch) if tensor.numel() == 1 else tensor

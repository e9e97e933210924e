"""The public face: a model folder, a picture and a sentence in; frames and their sound out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from engine.decode import require_finite
from engine.denoise import Known, StepCallback, StepState, denoise, hearing
from engine.encode import TextEmbedding
from engine.errors import RequestError
from engine.guided import Guidance, GuidedVelocity
from engine.inputs import ClipInputs, Picture, clip_inputs, starting_latents
from engine.loaded import LoadedModel
from engine.output import OUTPUT_TYPES, MovaOutput
from engine.request import SOUND_STEPS, ClipRequest, auto_size, check_integer, check_number
from engine.schedule import Step, paired_steps
from engine.step_cache import StepCache
from engine.timing import ClipLength

log = logging.getLogger(__name__)
__all__ = ["MovaOutput", "MovaPipeline", "Picture"]


class MovaPipeline(LoadedModel):
    """A loaded model. Make one with `from_pretrained`; call it as often as you like."""

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
        negatives = self.profile.negative_prompt if negative_prompt is None else negative_prompt
        clips = clip_inputs(prompt, negatives, image, last_image, seed)
        width, height = self._size(width, height, clips[0].first or clips[0].last, given_video_latents)
        common = ClipRequest(
            "",
            width,
            height,
            num_frames,
            fps,
            "",
            num_inference_steps,
            guidance_scale,
            bridge_guidance_scale,
            self.schedule.shift if video_shift is None else video_shift,
            self.schedule.shift if audio_shift is None else audio_shift,
            a2v_scale,
            v2a_scale,
        )
        requests = [
            replace(common, prompt=clip.prompt, negative_prompt=clip.negative_prompt, seed=clip.seed).checked(
                self.rules
            )
            for clip in clips
        ]
        r = requests[0]
        length = ClipLength(r.frames, r.fps, self.audio_vae.sample_rate, self.audio_vae.hop, self.stride)
        if given_video_latents is not None and given_audio_latents is not None:
            raise RequestError("given_video_latents and given_audio_latents are both set; there is nothing to generate")
        video, audio = self._starting_latents(
            requests, length, (video_latents, audio_latents), (given_video_latents, given_audio_latents)
        )

        stage("text")
        positive, negative = self.carrier.attempt("text", lambda: self._read_prompts(requests))
        stage("picture")
        condition = self.carrier.attempt("picture", lambda: self._read_pictures(clips, r, given_video_latents))
        stage("denoise")

        def guided() -> GuidedVelocity:
            return GuidedVelocity(
                condition.to(self.device),
                positive.embeds.to(self.device),
                None if negative is None else negative.to(self.device),
                Guidance(r.guidance, r.bridge_guidance, r.a2v_scale, r.v2a_scale),
                self.latent_fps(r.fps),
                self.split,
            )

        video, audio = self._denoised(
            video,
            audio,
            guided,
            paired_steps(r.steps, r.video_shift, r.audio_shift, self.schedule),
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

    def _read_prompts(self, requests: list[ClipRequest]) -> tuple[TextEmbedding, torch.Tensor | None]:
        """Embeddings of the prompts, and of the negative ones where guidance needs them."""
        positive = self.encode_prompt([r.prompt for r in requests])
        if requests[0].guidance == 1 and requests[0].bridge_guidance == 1:
            return positive, None
        return positive, self.encode_prompt([r.negative_prompt for r in requests]).embeds

    def _read_pictures(self, clips: list[ClipInputs], r: ClipRequest, given: torch.Tensor | None) -> torch.Tensor:
        """Mask and latents of the known frames of all clips, (B, stride + C, F, H, W); `given`: of known pictures."""
        known = [None] * len(clips) if given is None else given.split(1)
        return torch.cat(
            [
                self.known_frames(clip.first, clip.last, latents, r.frames, r.height, r.width)
                for clip, latents in zip(clips, known, strict=True)
            ]
        )

    def _denoised(
        self,
        video: torch.Tensor,
        audio: torch.Tensor,
        guided: Callable[[], GuidedVelocity],
        steps: list[Step],
        known: Known,
        callback: StepCallback | None,
        threshold: float | None,
        sound_steps: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The velocity loop. An attempt that ran out of memory goes on from its last whole step, `guided` anew."""
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
            with self.carrier.experts(first), caching(), refining(), self.kernels():
                return denoise(
                    self.expert_at,
                    done[1].to(device),
                    done[2].to(device),
                    guided(),
                    steps[done[0] :],
                    known,
                    callback=remember,
                    announce=self.carrier.step,
                    cache=cache,
                    sound_steps=sound_steps,
                )

        latents = self.carrier.attempt("denoise", run)
        if cache is not None:
            log.info("step cache: %d evaluations computed, %d left out", cache.computed, cache.skipped)
        return latents

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
        noise: tuple[torch.Tensor | None, torch.Tensor | None],
        given: tuple[torch.Tensor | None, torch.Tensor | None],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What picture and sound start from, checked for shape and finiteness, float32 on the device."""
        r, spatial = requests[0], int(self.video_vae.config.scale_factor_spatial)
        channels = int(self.video_vae.config.z_dim)
        shapes = {
            "video": (channels, length.latent_frames, r.height // spatial, r.width // spatial),
            "audio": (int(self.audio_vae.config.latent_dim), length.audio_latents),
        }
        sides = []
        for n, (name, shape) in enumerate(shapes.items()):
            side = starting_latents(name, shape, [q.seed for q in requests], noise[n], given[n])
            sides.append(require_finite(side.to(self.device, torch.float32), f"the {name} latents brought in"))
        return sides[0], sides[1]

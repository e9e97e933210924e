"""`python launch.py generate`: one clip from the command line.

Progress goes to standard error, the result to standard output. Exit codes: 0 done, 2 wrong input or a failed run
(one line says what), 130 stopped by Ctrl-C. Nothing partial is left behind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import secrets
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from engine.errors import Cancelled, MovaError, OutputError, RequestError
from engine.folders import cache_folder, find_model
from engine.media import load_image, write_clip
from engine.media.publish import check_target
from engine.memory.choose import CHOICES, plan_clip, remember
from engine.memory.machine import device_peak
from engine.memory.sizes import Work, guidance_passes
from engine.profile import ModelProfile, read_profile, read_rules
from engine.request import (
    STEP_CACHE,
    ClipRequest,
    SizeRules,
    auto_size,
    check_integer,
    check_number,
    check_prompt,
    check_size,
    parse_size,
)
from engine.timing import seconds_to_frames
from engine.version import __version__

if TYPE_CHECKING:
    from PIL import Image

    from engine.memory.plan import Plan
    from engine.pipeline import MovaPipeline

EXIT_WRONG, EXIT_STOPPED = 2, 130


class Parser(argparse.ArgumentParser):
    """argparse prints its usage with every error; one line is enough."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(EXIT_WRONG)


def parser() -> Parser:
    p = Parser(prog="generate", description="Makes one clip with its sound.")
    p.add_argument("--prompt", required=True, help="what is seen and heard; speech in double quotes")
    p.add_argument("--image", help="first frame (PNG, JPEG, WebP)")
    p.add_argument("--last-image", help="last frame")
    p.add_argument("--negative", help="what to avoid; the model's own text where not given")
    p.add_argument("--seed", type=int, help="the same seed makes the same clip; random where not given")
    length = p.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, help="length; the nearest one that the model can make is taken")
    length.add_argument("--frames", type=int, help="length in frames, 4k+1")
    p.add_argument("--size", default="auto", help="WIDTHxHEIGHT, or auto: the model's size closest to the image")
    p.add_argument("--fps", type=float, help="frames per second")
    p.add_argument("--steps", type=int, help="denoising steps")
    p.add_argument("--guidance", type=float, help="how closely to follow the prompt")
    p.add_argument("--bridge-guidance", type=float, help="how closely sound and picture follow each other; 1 is off")
    p.add_argument("--video-shift", type=float, help="sigma shift of the picture")
    p.add_argument("--audio-shift", type=float, help="sigma shift of the sound")
    p.add_argument("--a2v", type=float, default=1.0, help="strength of sound to picture")
    p.add_argument("--v2a", type=float, default=1.0, help="strength of picture to sound")
    p.add_argument("--model", help="name or folder of the model; the bundled one where not given")
    p.add_argument("--device", default="auto", help="auto, cuda, mps or cpu")
    p.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    p.add_argument("--memory", default="auto", help=f"memory to count on: {', '.join(CHOICES)} (GB of the card)")
    p.add_argument("--exact", action="store_true", help="never hold weights in 8 bits, however slow")
    p.add_argument(
        "--step-cache",
        type=float,
        nargs="?",
        const=STEP_CACHE,
        help="leave out most of a step where it would change little: faster, and not quite the same clip",
    )
    p.add_argument(
        "--sound-steps",
        type=int,
        default=1,
        help="parts in which the sound takes each step, at a small cost: for few steps",
    )
    p.add_argument("--attention", default="auto", help="auto, or the kernel that computes attention, like sage")
    p.add_argument("--gpus", type=int, default=1, help="devices that work on the clip together")
    p.add_argument("--output", help="where the mp4 goes; mova-SEED.mp4 in this folder where not given")
    p.add_argument("--json", action="store_true", help="print the result as JSON")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run(parser().parse_args(argv))


def run(args: argparse.Namespace) -> int:
    """Makes the clip that parsed arguments ask for; tells how it went, returns the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        result = generate(args)
    except (KeyboardInterrupt, Cancelled):
        print("generate: stopped; nothing was written", file=sys.stderr)
        return EXIT_STOPPED
    except (MovaError, MemoryError) as error:
        message = str(error) or "not enough memory for this clip; make it shorter or smaller"
        print("generate: " + " ".join(message.split()), file=sys.stderr)
        return EXIT_WRONG
    if args.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        size = f"{result['width']}x{result['height']}"
        print(f"{result['output']}  {size}, {result['seconds']:.2f} s, seed {result['seed']}")
    return 0


def generate(args: argparse.Namespace) -> dict[str, Any]:
    """From parsed arguments to a written clip; returns what is told about it.

    Raises:
        MovaError: the input is wrong or the run failed.
    """
    started = time.monotonic()
    folder = find_model(args.model)
    profile = read_profile(folder)
    settings, pictures = _settings(args, profile, read_rules(folder))
    target = _target(args.output, settings["seed"])
    settings["model"] = folder.name
    work = _work(settings)
    choices = args.device, args.precision, args.memory, args.exact, args.gpus, args.attention
    plan = plan_clip(folder, work, *choices)
    print(plan.why + (f"; {plan.advice}" if plan.advice else ""), file=sys.stderr)
    arguments: dict[str, Any] = {
        "prompt": settings["prompt"],
        "image": pictures[0],
        "last_image": pictures[1],
        "negative_prompt": settings["negative_prompt"],
        "height": settings["height"],
        "width": settings["width"],
        "num_frames": settings["frames"],
        "fps": settings["fps"],
        "num_inference_steps": settings["steps"],
        "guidance_scale": settings["guidance"],
        "bridge_guidance_scale": settings["bridge_guidance"],
        "video_shift": settings["video_shift"],
        "audio_shift": settings["audio_shift"],
        "a2v_scale": settings["a2v_scale"],
        "v2a_scale": settings["v2a_scale"],
        "seed": settings["seed"],
        "step_cache": settings["step_cache"] or None,
        "sound_steps": settings["sound_steps"],
    }
    with _Progress(settings["steps"]) as progress:
        if args.gpus > 1:
            loaded = time.monotonic()
            out = _together(args.gpus, folder, plan, work, arguments)
        else:
            pipe, loaded = _load(folder, plan), time.monotonic()
            out = pipe(**arguments, callback_on_stage=progress.stage, callback_on_step_end=progress.step)
            plain = settings["step_cache"] == 0 and settings["sound_steps"] == 1  # as the planner reckons
            if plain and progress.seconds_a_step():
                peak = device_peak(pipe.device)
                remember(folder, work, plan, progress.seconds_a_step(), peak, pipe.carrier.short)
        progress.stage("write")
        settings["prompt_truncated"] = out.truncated[0]
        written = write_clip(target, out.frames[0], out.audio[0], out.fps, out.sample_rate, settings)
    if out.truncated[0]:
        logging.warning("the prompt is longer than the model reads (512 tokens); its end was left out")
    if profile.note:
        logging.warning(profile.note)
    done = time.monotonic()
    return settings | {
        "output": str(written.path),
        "seconds": settings["frames"] / settings["fps"],
        "sample_rate": out.sample_rate,
        "plan": plan.why,
        "step_seconds": round(progress.seconds_a_step(), 4),
        "load_seconds": round(loaded - started, 3),
        "total_seconds": round(done - started, 3),
        "note": profile.note,
    }


def _settings(
    args: argparse.Namespace, profile: ModelProfile, rules: SizeRules
) -> tuple[dict[str, Any], list[Image.Image | None]]:
    """All numbers of the run and its pictures, checked before anything heavy is loaded.

    Args:
        rules: what the model's own networks allow.

    Raises:
        MovaError: the first value that is not valid, with the nearest one that is; or a picture that cannot be read.
    """
    pictures = [None if path is None else load_image(path) for path in (args.image, args.last_image)]
    sizes = [p.size for p in pictures if p is not None]
    width, height = (
        auto_size(sizes[0] if sizes else None, rules.sizes) if args.size == "auto" else parse_size(args.size)
    )
    check_size(width, height, rules.multiple)
    fps = check_number("fps", _or(args.fps, profile.fps), 1, 120)
    frames = args.frames
    if frames is None:
        frames = profile.frames
        if args.seconds is not None:
            frames = seconds_to_frames(check_number("seconds", args.seconds, 0.1, 100), fps, rules.stride)
    seed = secrets.randbelow(2**32) if args.seed is None else check_integer("seed", args.seed, 0, 2**63 - 1)
    request = ClipRequest(
        prompt=check_prompt("prompt", args.prompt),
        width=width,
        height=height,
        frames=frames,
        fps=fps,
        negative_prompt=_or(args.negative, profile.negative_prompt),
        steps=_or(args.steps, profile.steps),
        guidance=_or(args.guidance, profile.guidance),
        bridge_guidance=_or(args.bridge_guidance, profile.bridge_guidance),
        video_shift=_or(args.video_shift, profile.video_shift or 5.0),
        audio_shift=_or(args.audio_shift, profile.audio_shift or 5.0),
        a2v_scale=args.a2v,
        v2a_scale=args.v2a,
        seed=seed,
        step_cache=args.step_cache or 0.0,
        sound_steps=args.sound_steps,
    ).checked(rules)
    if not request.prompt.strip():
        raise RequestError("prompt is empty; say what is seen and heard")
    settings = {name: getattr(request, name) for name in ClipRequest.__dataclass_fields__}
    for name, given, default in (
        ("video_shift", args.video_shift, profile.video_shift),
        ("audio_shift", args.audio_shift, profile.audio_shift),
    ):
        settings[name] = given if given is not None else default  # None: the scheduler's own
    for name, path in (("image", args.image), ("last_image", args.last_image)):
        if path is not None:
            settings[name] = {"name": Path(path).name, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
    settings["made_by"] = f"MOVA Studio {__version__}"
    return settings, pictures


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _target(output: str | None, seed: int) -> Path:
    """Where the clip goes, checked before minutes of work; a name we choose never replaces a file."""
    if output is not None:
        target = Path(output).expanduser()
        if target.suffix.lower() != ".mp4":
            raise OutputError(f"output {target.name!r} does not end in .mp4; clips are written as mp4")
    else:
        target, n = Path(f"mova-{seed}.mp4"), 1
        while target.exists():
            n += 1
            target = Path(f"mova-{seed}-{n}.mp4")
    check_target(target)
    return target


def _work(settings: dict[str, Any]) -> Work:
    """What the planner has to know of the clip."""
    passes = guidance_passes(settings["guidance"], settings["bridge_guidance"])
    size = (settings["width"], settings["height"], settings["frames"])
    return Work(*size, settings["fps"], passes, settings["steps"])


def _load(folder: Path, plan: Plan) -> MovaPipeline:
    """The pipeline, with the libraries' own chatter off."""
    import diffusers
    import transformers

    from engine.pipeline import MovaPipeline
    from engine.texts import TextCache

    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    return MovaPipeline.from_pretrained(folder, plan=plan, texts=TextCache.here(), packed=cache_folder() / "packed")


def _together(count: int, folder: Path, plan: Plan, work: Work, arguments: dict[str, Any]) -> Any:
    """The clip made on several devices, as `MovaOutput` has it."""
    from engine.distributed.clip import make_together
    from engine.pipeline import MovaOutput
    from engine.texts import TextCache

    check_integer("gpus", count, 1, 64)
    arguments = arguments | {"output_type": "pt"}
    found = make_together(count, folder, plan, work.passes, arguments, texts=TextCache.here())
    frames, audio = found["frames"].permute(0, 1, 3, 4, 2).contiguous().numpy(), found["audio"].numpy()
    latents = found["video_latents"], found["audio_latents"]
    return MovaOutput(frames, audio, found["sample_rate"], work.fps, *latents, found["seeds"], found["truncated"])


class _Progress:
    """A bar with step and ETA on a terminal, a line a stage elsewhere; always on standard error."""

    WORDS = {  # noqa: RUF012 - constant
        "text": "reading the prompt",
        "picture": "reading the picture",
        "denoise": "making picture and sound",
        "decode": "decoding",
        "write": "writing the clip",
    }

    def __init__(self, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("starting", total=steps)
        self.laps: list[float] = []

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def stage(self, name: str) -> None:
        if name == "denoise":
            self.laps = [time.monotonic()]
        self.bar.update(self.task, description=self.WORDS[name])
        if not self.console.is_terminal:
            print(self.WORDS[name], file=sys.stderr)

    def step(self, state: Any) -> None:
        self.laps.append(time.monotonic())
        self.bar.update(self.task, completed=state.step)

    def seconds_a_step(self) -> float:
        """The median of all steps; 0 where none was seen."""
        laps = [b - a for a, b in zip(self.laps, self.laps[1:], strict=False)]
        return statistics.median(laps) if laps else 0.0


if __name__ == "__main__":
    sys.exit(main())

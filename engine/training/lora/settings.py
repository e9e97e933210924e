"""What can be chosen when a LoRA is trained. Every default is meant to be good enough for a first try.

Imports no torch: the page offers these settings, too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from engine.errors import RequestError
from engine.lora.keys import AUDIO, BRIDGE, HIGH, LOW

if TYPE_CHECKING:
    from engine.training.flow import NoiseLevels
    from engine.training.loop import Optimization, Rhythm

LEARN: dict[str, tuple[str, ...]] = {
    "both": (HIGH, LOW, AUDIO, BRIDGE), "picture": (HIGH, LOW), "sound": (AUDIO, BRIDGE),
}  # fmt: skip
ATTENTION = ("q", "k", "v", "o")
MODULES = {
    "attention": tuple(f"{a}.{m}" for a in ("self_attn", "cross_attn", "inner") for m in ATTENTION),
    "all": (*(f"{a}.{m}" for a in ("self_attn", "cross_attn", "inner") for m in ATTENTION), "ffn.0", "ffn.2"),
}
WIDE = 5120  # width of the released picture towers, for which the paper's rate of 1e-4 was found
RATE = 1e-4
NARROWER = 0.8  # power of the width by which the rate grows: 1.4e-3 for the bundled model, found by trial
PRECISIONS = ("auto", "float32", "bfloat16")
FROZEN = ("auto", "exact", "int8")
IN_PARTS = ("auto", "no", "yes")
OPTIMIZERS = ("auto", "adamw", "adamw8bit")


@dataclass(frozen=True)
class LoraSettings:
    """One training. In plain words:

    Attributes:
        trigger: a made-up word that calls the new thing; put in front of captions that lack it.
        learn: "both", "picture" or "sound".
        modules: "attention" (small file, style and looks) or "all" (also the feed-forward layers: new things).
        rank: how much can be learned; twice the rank is twice the file.
        alpha: how loudly it speaks while it learns; None is the rank, which is rarely wrong.
        steps: how long; a step looks at `batch` clips.
        rate: how fast; None chooses by the width of the model. Half of it if the picture breaks up.
        audio_weight: of the sound's loss; the picture's is 1.
        text_drop: share of samples without words, so that guidance keeps working; kept ones, where there are any.
        picture_drop: share without a first picture, so that it works from words alone.
        equal: share of samples with picture and sound at one noise level, as in sampling; the rest are independent.
        keep: share of all samples spent on not forgetting: the model's own clips of other things, made before training.
        keep_weight: how much their error counts. They differ little from what they shall stay, so that 1 says little.
        keep_clips: of how many lines to keep a clip is made; the others are words that such clips are shown with.
        ema: how much of the averaged factors stays at each step; the average is what is written. 0 is none.
        seed: the same seed, clips and settings give the same LoRA on one machine.
        save_every, sample_every: in steps; 0 samples never.
        precision: "auto" is bfloat16 on a graphics card and float32 on a processor.
        accumulate: parts of a batch that are computed one after the other, for less memory; 0 chooses.
        frozen: how the frozen model is held: "exact", "int8" (half of the memory, a little less true), or "auto", which
            takes 8 bits only where it does not fit otherwise.
        in_parts: blocks are computed a part of the tokens at a time, which takes a fraction of the memory and changes
            rounding: "yes", "no", or "auto", which does so where it is the fastest that fits.
        optimizer: "adamw", "adamw8bit" (its moments in 8 bits, a quarter of their memory; needs bitsandbytes), or
            "auto", which takes 8 bits on a graphics card where bitsandbytes is installed.
    """

    trigger: str = ""
    learn: str = "both"
    modules: str = "all"
    rank: int = 16
    alpha: float | None = None
    steps: int = 800
    batch: int = 4
    rate: float | None = None
    bridge_scale: float = 2.0
    warmup: int = 50
    decay: float = 0.001
    audio_weight: float = 1.0
    text_drop: float = 0.1
    picture_drop: float = 0.5
    equal: float = 0.5
    keep: float = 0.25
    keep_weight: float = 6.0
    keep_clips: int = 24
    ema: float = 0.99
    seed: int = 1
    save_every: int = 100
    sample_every: int = 200
    precision: str = "auto"
    accumulate: int = 0
    frozen: str = "auto"
    in_parts: str = "auto"
    optimizer: str = "auto"

    def __post_init__(self) -> None:
        for name, known in (
            ("learn", LEARN), ("modules", MODULES), ("precision", PRECISIONS), ("frozen", FROZEN),
            ("in_parts", IN_PARTS), ("optimizer", OPTIMIZERS),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise RequestError(f"{name} {getattr(self, name)!r} is not one of {', '.join(known)}")
        for name, low, high in (
            ("rank", 1, 512), ("steps", 1, 1_000_000), ("batch", 1, 4096), ("warmup", 0, 100_000),
            ("save_every", 1, 1_000_000), ("sample_every", 0, 1_000_000), ("alpha", 0.01, 10_000.0),
            ("rate", 1e-8, 1.0), ("bridge_scale", 0.0, 100.0), ("decay", 0.0, 1.0), ("audio_weight", 0.0, 100.0),
            ("text_drop", 0.0, 1.0), ("picture_drop", 0.0, 1.0), ("equal", 0.0, 1.0), ("keep", 0.0, 0.9),
            ("keep_weight", 0.0, 100.0), ("keep_clips", 1, 10_000),
            ("ema", 0.0, 0.9999), ("accumulate", 0, 4096), ("seed", 0, 2**63 - 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is None and name in ("alpha", "rate"):
                continue
            whole = isinstance(low, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise RequestError(f"{name} {value!r} is not a {'whole ' if whole else ''}number")
            if not low <= value <= high:
                nearest = low if not value >= low else high
                raise RequestError(f"{name} {value:g} is out of range; the nearest that is valid: {nearest:g}")

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the model that learn."""
        return LEARN[self.learn]

    @property
    def scale_alpha(self) -> float:
        return float(self.rank) if self.alpha is None else self.alpha

    def rate_for(self, width: int) -> float:
        """The learning rate for a model whose picture towers are `width` wide: narrower ones take larger steps."""
        return self.rate if self.rate is not None else RATE * (WIDE / width) ** NARROWER

    def takes(self, module: str) -> bool:
        """Whether a module, by its native name, gets factors."""
        return module.endswith(tuple(f".{name}" for name in MODULES[self.modules]))

    def optimization(self, width: int) -> Optimization:
        """AdamW with a climb and a half cosine."""
        from engine.training.loop import Optimization

        warmup = min(self.warmup, max(1, self.steps // 4))
        return Optimization(self.steps, self.rate_for(width), warmup, decay=self.decay, ema=self.ema, betas=(0.9, 0.99))

    def rhythm(self) -> Rhythm:
        """A line of log every step, for whoever watches; without samples held-out figures come at the end alone."""
        from engine.training.loop import Rhythm

        return Rhythm(log=1, evaluate=self.sample_every or self.steps, save=self.save_every)

    def levels(self, video_shift: float, audio_shift: float) -> NoiseLevels:
        """How noise levels are drawn; neither side is ever given clean."""
        from engine.training.flow import NoiseLevels

        return NoiseLevels(self.equal, 0.0, 0.0, 0.0, video_shift, audio_shift)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> LoraSettings:
        """Raises `RequestError` where a name is not known."""
        unknown = sorted(set(value) - {f.name for f in fields(cls)})
        if unknown:
            raise RequestError(f"no such setting: {', '.join(unknown)}; there are {', '.join(cls().to_dict())}")
        return cls(**value)

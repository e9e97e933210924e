"""A procedural world of short clips: large things that move and sound at exactly known instants.

    clip.py      ClipSpec, sample_spec, event_times: what a clip is and when something happens
    draw.py      a canvas for flat animated illustration
    scenes.py    render_frames: the picture of each family
    synth.py     render_audio: the sound of each family
    captions.py  caption, parse_caption, vocabulary: the words for it, made from the lists in words.py

Everything is drawn at any size and rate and is the same for the same ``ClipSpec``, bit for bit on one machine.
"""

from engine.training.demo_world.captions import Promise, caption, parse_caption, vocabulary
from engine.training.demo_world.clip import (
    BACKGROUNDS,
    COLOURS,
    FAMILIES,
    PERIODS,
    SIZES,
    TEMPI,
    VOICES,
    ClipSpec,
    event_times,
    sample_spec,
)
from engine.training.demo_world.scenes import render_frames
from engine.training.demo_world.synth import render_audio

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "FAMILIES",
    "PERIODS",
    "SIZES",
    "TEMPI",
    "VOICES",
    "ClipSpec",
    "Promise",
    "caption",
    "event_times",
    "parse_caption",
    "render_audio",
    "render_frames",
    "sample_spec",
    "vocabulary",
]

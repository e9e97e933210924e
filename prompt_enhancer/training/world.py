"""The world that the bundled video model knows, as data: things, what they do, how they sound, where and how fast.

The words are those that the video model was trained on: a suggestion for this world adds no others.
They are listed here once more because enhancer and engine do not know each other, and because the engine's lists are
weighted for drawing captions (a word stands there as often as it shall come up), these for choosing words.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thing:
    """One kind of thing.

    Attributes:
        nouns: what people call it.
        verbs: (does, doing) pairs.
        sounds: how people name its sound; the first is the usual one.
        hit: the moment of the sound, for "at every ...".
        plain: (does, doing) for a suggestion where the idea names no action.
    """

    nouns: tuple[str, ...]
    verbs: tuple[tuple[str, str], ...]
    sounds: tuple[str, ...]
    hit: str
    plain: tuple[str, str]


THINGS: dict[str, Thing] = {
    "ball": Thing(
        nouns=("ball", "rubber ball"),
        verbs=(
            ("bounces", "bouncing"),
            ("bounces on the floor", "bouncing on the floor"),
            ("bounces up and down", "bouncing up and down"),
            ("jumps up and down", "jumping up and down"),
            ("hits the floor again and again", "hitting the floor again and again"),
            ("hits the ground", "hitting the ground"),
        ),
        sounds=("a dull thump", "a thump", "a low thump", "a soft thud", "a deep thud", "a dull sound", "a thud"),
        hit="bounce",
        plain=("bounces on the floor", "bouncing"),
    ),
    "lamp": Thing(
        nouns=("lamp", "table lamp", "light"),
        verbs=(
            ("blinks", "blinking"),
            ("blinks on and off", "blinking on and off"),
            ("flashes", "flashing"),
            ("lights up again and again", "lighting up again and again"),
            ("turns on and off", "turning on and off"),
        ),
        sounds=("a clear beep", "a beep", "an electronic beep", "a high beep", "a plain beep tone"),
        hit="flash",
        plain=("blinks on and off", "blinking"),
    ),
    "bell": Thing(
        nouns=("bell", "church bell"),
        verbs=(
            ("swings", "swinging"),
            ("swings from side to side", "swinging from side to side"),
            ("swings left and right", "swinging left and right"),
            ("rings", "ringing"),
            ("hangs from a beam and swings", "hanging from a beam and swinging"),
        ),
        sounds=("a bright ding", "a ding", "a clear ring", "a metal ding", "a ringing ding"),
        hit="swing",
        plain=("swings from side to side", "swinging"),
    ),
    "drum": Thing(
        nouns=("drum", "snare drum"),
        verbs=(
            ("is hit by a stick", "being hit by a stick"),
            ("is hit with a mallet", "being hit with a mallet"),
            ("is beaten", "being beaten"),
            ("is played with a stick", "being played with a stick"),
            ("is struck again and again", "being struck again and again"),
        ),
        sounds=("a drum hit", "a sharp hit", "a drum beat", "a loud crack", "a snare hit", "a rattling hit"),
        hit="hit",
        plain=("is hit with a mallet", "being hit with a mallet"),
    ),
    "drop": Thing(
        nouns=("drop", "water drop", "drop of water"),
        verbs=(
            ("falls", "falling"),
            ("falls from a tap", "falling from a tap"),
            ("drips", "dripping"),
            ("splashes", "splashing"),
            ("falls into a pool", "falling into a pool"),
            ("falls down again and again", "falling down again and again"),
        ),
        sounds=("a wet plop", "a plop", "a soft plop", "a round plop", "a bubbling plop"),
        hit="splash",
        plain=("falls into the water", "falling"),
    ),
    "mouth": Thing(
        nouns=("face", "mouth", "round face", "head"),
        verbs=(
            ("speaks", "speaking"),
            ("talks", "talking"),
            ("sings", "singing"),
            ("speaks to the camera", "speaking to the camera"),
            ("opens and closes its mouth", "opening and closing its mouth"),
        ),
        sounds=("a clear voice", "a voice", "a vowel", "a sung vowel"),
        hit="opening",
        plain=("opens and closes its mouth", "speaking"),
    ),
    "piano": Thing(
        nouns=("piano", "toy piano", "piano with three keys", "keyboard"),
        verbs=(
            ("plays", "playing"),
            ("plays a tune", "playing a tune"),
            ("plays by itself", "playing by itself"),
            ("presses its keys one by one", "pressing its keys one by one"),
            ("plays single notes", "playing single notes"),
        ),
        sounds=("a piano note", "a note", "a clear note", "a piano tone", "a soft note"),
        hit="key",
        plain=("plays single notes", "playing"),
    ),
    "speaker": Thing(
        nouns=("loudspeaker", "speaker", "speaker box"),
        verbs=(
            ("pulses", "pulsing"),
            ("plays bass", "playing bass"),
            ("pumps", "pumping"),
            ("shakes with the bass", "shaking with the bass"),
            ("booms", "booming"),
        ),
        sounds=("a deep bass note", "a bass note", "a buzzing bass", "a low bass tone", "a boom of bass"),
        hit="pulse",
        plain=("shakes with the bass", "pulsing"),
    ),
}

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white")
SIZES = ("small", "little", "tiny", "large", "big", "huge")
PLACES = (
    "at night",
    "on a dark blue background",
    "under a night sky",
    "in the dark",
    "in front of a cream wall",
    "on a cream background",
    "in a warm room",
    "on a beige background",
    "in a grey studio",
    "on a grey background",
    "in front of a grey wall",
    "on a green meadow",
    "in a meadow",
    "on the grass",
    "in front of green hills",
    "outdoors on the grass",
    "at dusk",
    "in front of a pink sky",
    "on a pink background",
    "at sunset",
    "under a pink evening sky",
)
PACES: dict[str, tuple[str, ...]] = {  # adjective -> adverbs that say the same
    "slow": ("slowly", "very slowly", "at a slow tempo", "lazily", "at a slow pace"),
    "steady": ("steadily", "evenly", "at a medium tempo", "at a steady pace", "calmly"),
    "fast": ("fast", "quickly", "very fast", "at a fast tempo", "rapidly", "at a quick pace"),
}
QUICK: dict[str, tuple[str, ...]] = {
    "slow": ("slow", "lazy"),
    "steady": ("steady", "medium", "even"),
    "fast": ("fast", "quick", "rapid"),
}

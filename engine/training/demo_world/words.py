"""The word lists and sentence frames behind ``captions``: data, with as little code as possible.

A frame has slots in braces: {thing} "a large red ball", {the_thing} "the large red ball", {bare} "large red ball",
{noun} "the ball", {does} "bounces", {doing} "bouncing", {at} "on the floor", {where} the background, {how} "slowly",
{quick} "slow", {a_quick} "a slow", {sound} "a dull thump", {every} "at every bounce", {hit} "bounce", {hits}
"bounces", {rings} "thumps", {opening} "a video of". Slots of unnamed attributes become empty.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FamilyWords:
    """How people talk about one family. ``verbs`` are pairs (does, doing); ``keywords`` decide the family when a
    caption is read, ``hints`` only where no keyword is found."""

    nouns: tuple[str, ...]
    verbs: tuple[tuple[str, str], ...]
    spots: tuple[str, ...]
    sounds: tuple[str, ...]
    hit: str
    hits: str
    rings: str
    keywords: tuple[str, ...]
    hints: tuple[str, ...] = ()


FAMILY_WORDS: dict[str, FamilyWords] = {
    "ball": FamilyWords(
        nouns=("ball", "ball", "ball", "rubber ball"),
        verbs=(
            ("bounces", "bouncing"),
            ("bounces", "bouncing"),
            ("jumps up and down", "jumping up and down"),
            ("hits the floor again and again", "hitting the floor again and again"),
        ),
        spots=("on the floor", "on the floor", "on the ground", "up and down", ""),
        sounds=("a dull thump", "a dull thump", "a thump", "a low thump", "a soft thud", "a deep thud", "a dull sound"),
        hit="bounce",
        hits="bounces",
        rings="thumps",
        keywords=("ball", "balls"),
        hints=("bounce", "bounces", "bouncing", "thump", "thumps"),
    ),
    "lamp": FamilyWords(
        nouns=("lamp", "lamp", "lamp", "table lamp", "light"),
        verbs=(
            ("blinks", "blinking"),
            ("blinks on and off", "blinking on and off"),
            ("flashes", "flashing"),
            ("lights up again and again", "lighting up again and again"),
            ("turns on and off", "turning on and off"),
        ),
        spots=("on the table", "on and off", "", ""),
        sounds=("a beep", "a clear beep", "an electronic beep", "a high beep", "a plain beep tone"),
        hit="flash",
        hits="flashes",
        rings="beeps",
        keywords=("lamp", "lamps", "light"),
        hints=("blinks", "blinking", "beep", "beeps"),
    ),
    "bell": FamilyWords(
        nouns=("bell", "bell", "bell", "church bell"),
        verbs=(
            ("swings", "swinging"),
            ("swings from side to side", "swinging from side to side"),
            ("rings", "ringing"),
            ("swings left and right", "swinging left and right"),
            ("hangs and swings", "hanging and swinging"),
        ),
        spots=("from a beam", "on a beam", "", ""),
        sounds=("a ding", "a bright ding", "a clear ring", "a metal ding", "a ringing ding"),
        hit="swing",
        hits="swings",
        rings="dings",
        keywords=("bell", "bells"),
        hints=("ding", "dings"),
    ),
    "drum": FamilyWords(
        nouns=("drum", "drum", "drum", "snare drum"),
        verbs=(
            ("is hit by a stick", "being hit by a stick"),
            ("is hit with a mallet", "being hit with a mallet"),
            ("is beaten", "being beaten"),
            ("is played with a stick", "being played with a stick"),
            ("is struck again and again", "being struck again and again"),
        ),
        spots=("on the floor", "on the ground", "", ""),
        sounds=("a drum hit", "a sharp hit", "a drum beat", "a loud crack", "a snare hit", "a rattling hit"),
        hit="hit",
        hits="hits",
        rings="rattles",
        keywords=("drum", "drums", "snare"),
        hints=("mallet", "stick"),
    ),
    "drop": FamilyWords(
        nouns=("drop", "drop", "drop", "water drop", "drop of water"),
        verbs=(
            ("falls", "falling"),
            ("falls from a tap", "falling from a tap"),
            ("drips", "dripping"),
            ("splashes", "splashing"),
            ("falls down again and again", "falling down again and again"),
        ),
        spots=("into a pool", "into the pool", "into the water", "into a pool of the same color", ""),
        sounds=("a plop", "a wet plop", "a soft plop", "a round plop", "a bubbling plop"),
        hit="splash",
        hits="splashes",
        rings="plops",
        keywords=("drop", "drops", "tap", "droplet", "water", "dripping", "drips"),
        hints=("plop", "plops", "pool", "splash"),
    ),
    "mouth": FamilyWords(
        nouns=("face", "face", "mouth", "round face", "head"),
        verbs=(
            ("speaks", "speaking"),
            ("says {voice}", "saying {voice}"),
            ("says {voice} again and again", "saying {voice} again and again"),
            ("sings {voice}", "singing {voice}"),
            ("opens and closes its mouth", "opening and closing its mouth"),
            ("talks", "talking"),
        ),
        spots=("", "", "to the camera"),
        sounds=(
            "a voice",
            "a clear voice",
            "a vowel",
            "a sung vowel",
            "a voice saying {voice}",
            "the vowel {voice}",
            "a spoken {voice}",
            "a clear {voice}",
        ),
        hit="opening",
        hits="vowels",
        rings="is heard",
        keywords=("face", "faces", "mouth", "head"),
        hints=("voice", "vowel", "speaks", "says", "speaking", "saying", "sings"),
    ),
    "piano": FamilyWords(
        nouns=("piano", "piano", "toy piano", "piano with three keys", "keyboard"),
        verbs=(
            ("plays", "playing"),
            ("plays a tune", "playing a tune"),
            ("plays by itself", "playing by itself"),
            ("presses its keys one by one", "pressing its keys one by one"),
            ("plays single notes", "playing single notes"),
        ),
        spots=("", "", "on the floor"),
        sounds=("a piano note", "a note", "a clear note", "a piano tone", "a soft note"),
        hit="key",
        hits="keys",
        rings="sounds a note",
        keywords=("piano", "keys", "key", "keyboard"),
        hints=("note", "notes"),
    ),
    "speaker": FamilyWords(
        nouns=("loudspeaker", "loudspeaker", "speaker", "speaker", "speaker box"),
        verbs=(
            ("pulses", "pulsing"),
            ("plays bass", "playing bass"),
            ("pumps", "pumping"),
            ("shakes with the bass", "shaking with the bass"),
            ("booms", "booming"),
        ),
        spots=("", "", "on the floor"),
        sounds=("a bass note", "a deep bass note", "a buzzing bass", "a low bass tone", "a boom of bass"),
        hit="pulse",
        hits="pulses",
        rings="booms",
        keywords=("speaker", "loudspeaker", "speakers"),
        hints=("bass",),
    ),
}

PLACES: dict[str, tuple[str, ...]] = {
    "night": ("at night", "at night", "on a dark blue background", "under a night sky", "in the dark"),
    "cream": ("in front of a cream wall", "on a cream background", "in a warm room", "on a beige background"),
    "grey": ("in a grey studio", "on a grey background", "in a gray studio", "in front of a grey wall"),
    "meadow": ("on a green meadow", "in a meadow", "on the grass", "in front of green hills", "outdoors on the grass"),
    "dusk": ("at dusk", "in front of a pink sky", "on a pink background", "at sunset", "under a pink evening sky"),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "small", "little", "tiny"),
    "large": ("large", "big", "big", "huge"),
}
TEMPO_WORDS: dict[str, tuple[str, ...]] = {
    "slow": ("slowly", "slowly", "very slowly", "at a slow tempo", "lazily", "at a slow pace"),
    "medium": ("steadily", "steadily", "evenly", "at a medium tempo", "at a steady pace", "calmly"),
    "fast": ("fast", "quickly", "very fast", "at a fast tempo", "rapidly", "at a quick pace"),
}
TEMPO_ADJECTIVES: dict[str, tuple[str, ...]] = {
    "slow": ("slow", "slow", "lazy"),
    "medium": ("steady", "steady", "medium", "even"),
    "fast": ("fast", "fast", "quick", "rapid"),
}
EVERY = ("at every", "at every", "with every", "with each", "at each", "on every")
OPENINGS = ("a video of", "a clip of", "we see", "an animation of", "a short film of", "a picture of")

FRAMES: tuple[str, ...] = (
    # one sentence, picture then sound
    "{thing} {does} {at} {where} {how}, {sound} {every}",
    "{thing} {does} {at} {where}, {sound} {every}",
    "{thing} {does} {how} {where}, {sound} {every}",
    "{thing} {does} {how}, {sound} {every}",
    "{where}, {thing} {does} {how}, {sound} {every}",
    "{thing} {where} {does} {how} with {sound} {every}",
    "{thing} {does} {at} {how} {where}. {sound} {every}.",
    "{thing} {does} {where}. {a_quick} rhythm, {sound} {every}.",
    "{thing} {how} {does} and makes {sound} each time",
    "{thing} {does} {how} {where} and makes {sound} each time",
    "{thing} {does} {how} {where} and {rings} each time",
    "{thing} {does} {how} and {rings} {every}",
    "{opening} {thing} {doing} {at} {how} {where}",
    "{opening} {thing} {doing} {where}, {how}, with {sound} {every}",
    "{opening} {a_quick} {bare} {doing} {at} {where}",
    "{how} {thing} {does} {where}",
    "{how}, {thing} {does} {at}. {sound} {every}",
    # the sound first
    "{sound} {every}: {thing} {does} {where} {how}",
    "{sound} sounds each time {the_thing} {does} {how} {where}",
    "the sound of {sound} {every} while {thing} {does} {how} {where}",
    # terse
    "{bare}",
    "{bare}, {quick}",
    "{bare} {doing}, {quick}",
    "{bare} {doing} {how}",
    "{bare} {where}",
    "{bare} {where}, {how}",
    "{quick} {bare}, {where}",
    "{a_quick} {bare} {where}",
    "{thing} {does}",
    "{thing} {does} {how}",
    "{thing} {does} {where}",
    "{where}, {bare}, {quick}, {sound}",
    "{bare}, {sound}, {quick}, {where}",
)

LONG_FRAMES: tuple[str, ...] = (
    "{opening} {thing} {where}. {noun} {does} {at} {how}. Sound: {sound} {every}, nothing else is heard.",
    "the video opens on {thing} {where}. {noun} {does} {how}. {every} we hear {sound}.",
    "This video has no subtitles. {thing} is in the middle of the picture {where}. {noun} {does} {at} {how}. "
    "The sound is {sound} {every}.",
    "the scene opens with {thing} {where}. Then {noun} {does} {how}. On the sound track there is {sound} {every}, "
    "in time with the picture.",
    "This video has no subtitles. the first frame shows {thing} {where}, seen from the front. {noun} {does} {at}, "
    "{how}. We hear {sound} {every} and no music.",
    "a flat, colorful animation: {thing} {where}, seen from the front. {noun} {does} {how}. Each of the {hits} "
    "is heard as {sound}.",
)

HELD_OUT_FRAMES: tuple[str, ...] = (
    "each time {the_thing} {does} {where}, there is {sound}, {how}",
    "{how} {where}, {the_thing} {does}: {sound}",
    "in this clip {thing} is {doing} {at} {how}, {where}, and {sound} is heard {every}",
    "there is {thing} {where}. it is {doing} {how}. it makes {sound}",
    "we hear {sound} as {the_thing} {does} {how} {where}",
    "{the_thing} is {doing} {where} {how}. each {hit} makes {sound}",
    "show {thing}, {doing} {how}, and let us hear {sound} {every} {where}",
    "with {sound} {every}, {the_thing} keeps {doing} {where} at {a_quick} rhythm",
    "a scene with {thing} {where}: it is {doing} {how} in time with {sound}",
    "{quick} {hits} of {thing} {where}, heard as {sound}",
)

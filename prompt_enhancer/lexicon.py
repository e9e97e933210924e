"""Word lists behind the guarantees and the rules: data. English unless said; stems as `stem` makes them."""

from __future__ import annotations

import re

_WHOLE = frozenset("note notes tone tones care cares bass does".split())  # cut, they would look like other words


def stem(word: str) -> str:
    """A crude stem: "barking", "barks" and "barked" become "bark". Only for comparing words with each other."""
    word = word.lower()
    if word in _WHOLE or word.endswith("ss"):
        return word
    for ending in ("ingly", "ings", "edly", "ing", "ies", "ed", "es", "ly", "s", "y", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls" else word


def stems(text: str) -> frozenset[str]:
    """The stems of all words of a text."""
    return frozenset(stem(word) for word in re.findall(r"[^\W\d_]+", text))


def _stemmed(text: str) -> frozenset[str]:
    return frozenset(stem(word) for word in text.split())


COLOURS = frozenset(
    "red orange yellow green blue purple violet pink brown black white grey gray gold golden silver beige cream "
    "turquoise cyan magenta crimson scarlet teal navy maroon ivory amber bronze copper".split()
)
COLOURS_ELSEWHERE = {
    "zh": tuple("红 橙 黄 绿 蓝 紫 粉 棕 黑 白 灰 金色 银".split()),
    "es": tuple("rojo roja naranja amarillo amarilla verde azul morado morada negro negra blanco blanca gris".split()),
    "ar": tuple("أحمر حمراء أصفر صفراء أخضر خضراء أزرق زرقاء أسود سوداء أبيض بيضاء".split()),
}

NUMBERS = frozenset(
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen twenty thirty forty fifty "
    "hundred hundreds thousand thousands million dozen dozens twice thrice several pair both couple".split()
)

STILL = re.compile(
    r"\b(?:motionless(?:ly)?|unmoving|immobile|stationary|immobility|stillness|stock[- ]still|still (?=image|photo|"
    r"picture|frame|shot|life|lake|water|air)|static (?=shot|camera|image|picture|scene|frame|pose|view)|"
    r"frozen in (?:place|time)|without (?:moving|movement|motion)|freeze[- ]frame)(?:\b|(?<=\s))",
    re.IGNORECASE,
)
STANDS_STILL = re.compile(
    r"\b((?:stand|stay|sit|hold|keep|remain|lie|stop)(?:s|ing|ped)?|stood|sat|held|kept|lies|lying|perfectly|"
    r"completely|totally|absolutely) still\b",
    re.IGNORECASE,
)
STILL_ELSEWHERE = ("静止不动", "一动不动", "静止", "inmóvil", "inmóviles", "بلا حراك")
STILL_IN_ADDED = re.compile(r"\b(?:still|static|frozen|freeze|freezes|paused?|pauses)\b", re.IGNORECASE)

CAMERA = _stemmed(
    "zoom zooms pan pans panning tilt tilts dolly dollies tracking crane handheld pov drone orbit orbits orbiting "
    "aerial timelapse closeup steadicam whip"
)
SPEAKING = _stemmed(
    "say says said saying speak speaks speaking spoken talk talks talking tell tells whisper whispers shout shouts "
    "yell yells scream screams cry cries sing sings singing song ask asks reply replies answer answers voice voices "
    "dialogue narrator narration chat murmur murmurs mutter mumble hum chant announce lyrics speech conversation words"
)

# Words that name a sound, and how the rules speak of it. Read as stems in the idea.
SOUND_PHRASES: dict[str, str] = {
    "bark": "barking",
    "meow": "meowing",
    "purr": "purring",
    "growl": "growling",
    "howl": "howling",
    "roar": "a roar",
    "chirp": "chirping",
    "tweet": "tweeting",
    "neigh": "neighing",
    "moo": "mooing",
    "buzz": "buzzing",
    "hum": "humming",
    "hiss": "hissing",
    "click": "clicking",
    "clack": "clacking",
    "tick": "ticking",
    "knock": "knocking",
    "bang": "a bang",
    "crash": "a crash",
    "crack": "a crack",
    "crackle": "crackling",
    "creak": "creaking",
    "squeak": "squeaking",
    "rumble": "rumbling",
    "thunder": "thunder",
    "patter": "pattering",
    "drip": "dripping",
    "splash": "splashing",
    "sizzle": "sizzling",
    "whistle": "whistling",
    "honk": "honking",
    "siren": "a siren",
    "alarm": "an alarm",
    "applause": "applause",
    "clap": "clapping",
    "laugh": "laughter",
    "laughter": "laughter",
    "giggle": "giggling",
    "cheer": "cheering",
    "snore": "snoring",
    "cough": "coughing",
    "sneeze": "a sneeze",
    "sob": "sobbing",
    "gasp": "a gasp",
    "footstep": "footsteps",
    "music": "music",
    "melody": "a melody",
    "jazz": "jazz",
    "tune": "a tune",
    "song": "a song",
    "sing": "singing",
    "whisper": "a whisper",
    "shout": "shouting",
    "scream": "a scream",
    "beep": "a beep",
    "ding": "a ding",
    "chime": "a chime",
    "ring": "ringing",
    "thump": "a thump",
    "thud": "a thud",
    "plop": "a plop",
    "boom": "a boom",
    "pop": "a pop",
    "clink": "clinking",
    "clatter": "clattering",
    "rattle": "rattling",
    "rustle": "rustling",
    "whoosh": "a whoosh",
    "swish": "a swish",
    "explosion": "an explosion",
    "drumbeat": "a drum beat",
    "bass": "bass",
    "note": "a note",
    "tone": "a tone",
    "voice": "a voice",
    "vowel": "a vowel",
    "gurgle": "gurgling",
    "quack": "quacking",
    "croak": "croaking",
    "bleat": "bleating",
    "squawk": "squawking",
    "screech": "a screech",
    "jingle": "jingling",
    "strum": "strumming",
    "echo": "an echo",
}
SOUND_OF: dict[str, str] = {stem(word): phrase for word, phrase in SOUND_PHRASES.items()}
SOUNDS = frozenset(SOUND_OF) | _stemmed("beat sound hit noise audible silence silent quiet loud")
# Sounds only where they stand as nouns: "a sharp hit", but not "is hit".
SOUND_NOUNS = frozenset("hit beat blow stroke noise sound cry call rhythm snap tap drip splash hum buzz".split())
SOUNDS_ELSEWHERE = {
    "zh": tuple("雷声 雨声 风声 鼓声 铃声 钟声 掌声 笑声 歌声 哭声 水声 琴声 枪声 音乐 脚步声 狗叫 鸟鸣".split()),
    "es": ("ladrido", "trueno", "música", "risa", "aplauso", "campana", "tambor", "lluvia", "viento", "pasos"),
    "ar": ("نباح", "رعد", "موسيقى", "ضحك", "تصفيق", "جرس", "طبل", "مطر"),
}

# Things whose own sound may be named although the idea does not: thing -> sounds.
IMPLIED: dict[str, frozenset[str]] = {
    stem(thing): _stemmed(sounds)
    for thing, sounds in {
        "ball": "thump thud bounce",
        "lamp": "beep tone",
        "light": "beep tone",
        "bell": "ding ring",
        "drum": "beat crack hit rattle snare",
        "snare": "beat crack hit rattle",
        "drop": "plop splash drip",
        "water": "plop splash drip gurgle",
        "tap": "plop splash drip",
        "face": "voice vowel",
        "mouth": "voice vowel",
        "head": "voice vowel",
        "piano": "note tone tune melody music",
        "keyboard": "note tone tune melody music",
        "speaker": "bass boom note tone",
        "loudspeaker": "bass boom note tone",
        "dog": "bark growl",
        "cat": "meow purr",
        "bird": "chirp tweet",
        "rain": "patter drip",
        "storm": "thunder rumble",
        "fire": "crackle",
        "clock": "tick",
        "train": "rumble clatter",
        "crowd": "cheer applause",
        "guitar": "strum melody music note",
        "violin": "melody music note",
        "wave": "crash splash",
        "sea": "crash splash wave",
        "door": "creak",
        "bee": "buzz",
        "frog": "croak",
        "duck": "quack",
        "engine": "hum rumble roar",
        "car": "hum honk",
        "walk": "footstep",
        "run": "footstep",
    }.items()
}

OPPOSITES: tuple[tuple[frozenset[str], ...], ...] = tuple(
    tuple(frozenset(side.split()) for side in row.split("|"))
    for row in (
        "slow slowly lazily lazy unhurried|fast quick quickly rapidly rapid hurried hurriedly|steady steadily evenly",
        "small little tiny|large big huge giant",
        "night midnight moonlight|day daytime daylight noon|sunset dusk|sunrise dawn|morning",
        "indoors inside|outdoors outside",
        "loud loudly|quiet quietly soft softly silent",
        "young|old elderly",
        "man|woman|boy|girl",
        "happy happily|sad sadly|angry angrily",
        "hot|cold",
        "left|right",
        "summer|winter|autumn|spring",
        "rain rainy|sunny|snow snowy",
        "empty|crowded",
    )
)

# Words that say nothing of their own: the bundled model may add these and the idea's, and no others.
PLAIN = _stemmed(
    "a an the this that it its is are was of on in at to with from and then while as by into under front video opens "
    "scene shows first frame picture we hear heard sound sounds each every time track there one single"
)
WORLD_ACTIONS: dict[str, frozenset[str]] = {  # what the bundled model may add to a thing of its world
    stem(thing): _stemmed(words)
    for thing, words in {
        "ball": "bounce bounces floor dull soft low deep thump thud",
        "lamp": "blinks off flash clear beep",
        "light": "blinks off flash clear beep",
        "bell": "swings side swing bright clear ding",
        "drum": "hit mallet drum beat sharp",
        "drop": "falls water splash wet plop",
        "tap": "falls water splash wet plop",
        "face": "opens closes mouth opening clear voice",
        "mouth": "opens closes mouth opening clear voice",
        "head": "opens closes mouth opening clear voice",
        "piano": "plays notes single key keys piano note",
        "keyboard": "plays notes single key keys piano note",
        "speaker": "shakes bass pulse deep note",
        "loudspeaker": "shakes bass pulse deep note",
    }.items()
}
AROUND = frozenset("outdoors indoors outside inside".split())  # places that need no preposition
SAME_PACE = (
    frozenset("slow slowly lazy lazily".split()),
    frozenset("steady steadily even evenly medium calmly".split()),
    frozenset("fast quick quickly rapid rapidly".split()),
)
NEGATIONS = frozenset("not no never without nothing nobody none neither nor cannot n't".split())
CHATTER = re.compile(
    r"\b(?:as an ai|language model|assistant|system prompt|sure[,!]|of course[,!]|certainly[,!]|here is the|here's the|"
    r"i cannot|i can't|i'm sorry|prompt:|instructions?\b|ignore (?:all|the|previous)|https?:|www\.|<\w+|```)",
    re.IGNORECASE,
)

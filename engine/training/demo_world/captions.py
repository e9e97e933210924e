"""The words of the demo world: captions for a clip, and what a caption promises.

``caption`` builds a sentence from parts: who (size, colour, thing), what it does, where, how fast, and what is heard.
Any attribute but the family may be left out, so the model learns to choose it. ``held_out=True`` uses sentence frames
and wordings that training never shows, made of the same vocabulary: a test of language, not of the dictionary.
``parse_caption`` reads attributes back; judges use it to know what was asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from engine.training.demo_world.clip import BACKGROUNDS, COLOURS, SIZES, TEMPI, VOICES, ClipSpec
from engine.training.demo_world.words import (
    EVERY,
    FAMILY_WORDS,
    FRAMES,
    HELD_OUT_FRAMES,
    LONG_FRAMES,
    OPENINGS,
    PLACES,
    SIZE_WORDS,
    TEMPO_ADJECTIVES,
    TEMPO_WORDS,
    FamilyWords,
)

NO_SUBTITLES = "This video has no subtitles."
"""MOVA's prompts begin with it; the prompt enhancer writes it, so captions must know it."""

ROOMY_FRAMES = tuple(
    frame for frame in (*FRAMES, *LONG_FRAMES) if "{where}" in frame and re.search(r"\{how|quick\}", frame)
)
"""Training frames with room for every attribute."""


@dataclass(frozen=True)
class Promise:
    """What a caption says about the clip; None where it says nothing."""

    family: str | None = None
    colour: str | None = None
    background: str | None = None
    size: str | None = None
    tempo: str | None = None
    voice: str | None = None


def caption(spec: ClipSpec, rng: np.random.Generator, held_out: bool = False, thorough: float = 0.0) -> str:
    """One caption of a clip. The same clip has thousands; held-out ones never equal a training one.

    ``thorough`` is the share of training captions that name every attribute.
    """
    words = FAMILY_WORDS[spec.family]
    named = {
        "colour": rng.random() < 0.93,
        "background": rng.random() < 0.60,
        "tempo": rng.random() < 0.72,
        "size": rng.random() < 0.45,
        "voice": rng.random() < 0.75,
    }
    if thorough and rng.random() < thorough:
        named = dict.fromkeys(named, True)
        frame = _pick(rng, ROOMY_FRAMES)
    elif held_out:
        frame = _pick(rng, HELD_OUT_FRAMES)
    elif rng.random() < 0.15:
        frame = _pick(rng, LONG_FRAMES)
    else:
        frame = _pick(rng, FRAMES)
    text = _fill(frame, spec, words, named, rng)
    if rng.random() < 0.12 and not text.startswith(NO_SUBTITLES):
        text = f"{NO_SUBTITLES} {text[0].upper()}{text[1:]}"
    return _dress(text, rng)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _fill(frame: str, spec: ClipSpec, words: FamilyWords, named: dict[str, bool], rng: np.random.Generator) -> str:
    """Put words into the slots of a frame; slots of attributes that are not named vanish with their comma."""
    size = _pick(rng, SIZE_WORDS[spec.size]) if named["size"] else ""
    colour = spec.colour if named["colour"] else ""
    noun = _pick(rng, words.nouns)
    phrase = " ".join(part for part in (size, colour, noun) if part)
    quick = _pick(rng, TEMPO_ADJECTIVES[spec.tempo]) if named["tempo"] else ""
    voiced = spec.family == "mouth" and named["voice"]
    sounds = tuple(sound for sound in words.sounds if ("{voice}" in sound) == voiced)
    does = tuple(verb for verb in words.verbs if ("{voice}" in verb[0]) == voiced or "{voice}" not in verb[0])
    verb = does[int(rng.integers(len(does)))]
    slots = {
        "thing": f"{_article(phrase)} {phrase}",
        "the_thing": f"the {phrase}",
        "bare": phrase,
        "noun": f"the {noun}",
        "does": verb[0],
        "doing": verb[1],
        "at": _pick(rng, words.spots) if " " not in verb[0] else "",  # longer verbs say it already
        "where": _pick(rng, PLACES[spec.background]) if named["background"] else "",
        "how": _pick(rng, TEMPO_WORDS[spec.tempo]) if named["tempo"] else "",
        "quick": quick,
        "a_quick": f"{_article(quick)} {quick}" if quick else "a",
        "sound": _pick(rng, sounds),
        "every": f"{_pick(rng, EVERY)} {words.hit}",
        "hit": words.hit,
        "hits": words.hits,
        "rings": words.rings,
        "opening": _pick(rng, OPENINGS),
    }
    text = frame
    for name, value in slots.items():
        text = text.replace("{" + name + "}", value)
    text = text.replace("{voice}", f'"{spec.voice}"')
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\s+([,.:])", r"\1", text)
    text = re.sub(r"^[,.:]\s*", "", text)
    return re.sub(r"([,.:])(?:\s*[,.])+", r"\1", text)


def _article(phrase: str) -> str:
    return "an" if phrase[:1] in "aeiou" else "a"


def _dress(text: str, rng: np.random.Generator) -> str:
    """Vary what people vary: capitals, the full stop, all lower case."""
    text = text.rstrip(" ,:")
    style = rng.random()
    if style < 0.45:  # a written sentence
        text = re.sub(r"(^|[.] )([a-z])", lambda found: found[1] + found[2].upper(), text)
        return text if text.endswith((".", '"')) else text + "."
    if style < 0.75:  # typed in a hurry
        return text.lower().rstrip(".")
    return text.rstrip(".")


# ---- reading a caption back

_PLACE_PATTERNS = {name: re.compile(pattern) for name, pattern in {
    "night": r"\bat night\b|\bnight\b|\bdark(?: blue)? (?:background|sky)\b|\bin the dark\b|\bmoonlight\b",
    "cream": r"\bcream\b|\bbeige\b|\bwarm (?:wall|room|background)\b",
    "grey": r"\bgr[ea]y\b|\bstudio\b",
    "meadow": r"\b(?:green )?(?:meadow|grass|hills)\b|\boutdoors\b",
    "dusk": r"\bpink\b|\bdusk\b|\bsunset\b|\bevening\b",
}.items()}  # fmt: skip
_COLOUR_OF_PLACE = re.compile(r"\bgreen (?:meadow|grass|hills)\b|\bdark blue (?:background|sky)\b")


def parse_caption(text: str) -> Promise:
    """What the caption promises, by its words. Of several things named, the first counts."""
    plain = text.lower().replace("this video has no subtitles", " ")
    places = [(found.start(), name) for name, rule in _PLACE_PATTERNS.items() if (found := rule.search(plain))]
    without_places = _COLOUR_OF_PLACE.sub(" ", plain)
    words = re.findall(r"[a-z]+", without_places)

    def first(table: dict[str, tuple[str, ...]]) -> str | None:
        for word in words:
            for name, known in table.items():
                if word in known:
                    return name
        return None

    family = first({name: entry.keywords for name, entry in FAMILY_WORDS.items()})
    if family is None:
        family = first({name: entry.hints for name, entry in FAMILY_WORDS.items()})
    quoted = re.search(r'["\u201c](ah|oo|ee)', plain)
    return Promise(
        family=family,
        colour=first({name: (name,) for name in COLOURS}),
        background=min(places)[1] if places else None,
        size=first({name: SIZE_WORDS[name] for name in SIZES}),
        tempo=first({name: _tempo_keys(name) for name in TEMPI}),
        voice=(quoted[1] if quoted else first({name: (name,) for name in VOICES})) if family == "mouth" else None,
    )


def _tempo_keys(tempo: str) -> tuple[str, ...]:
    return {
        "slow": ("slow", "slowly", "lazily", "lazy", "unhurried"),
        "medium": ("steady", "steadily", "evenly", "even", "medium", "moderate", "calmly"),
        "fast": ("fast", "quick", "quickly", "rapidly", "rapid", "hurried", "hurriedly"),
    }[tempo]


def vocabulary() -> tuple[str, ...]:
    """Every word (lower case) and mark that ``caption`` can write, sorted: what a tokenizer must hold."""
    parts: list[str] = [NO_SUBTITLES, "a an the", *COLOURS, *VOICES, *EVERY, *OPENINGS]
    parts += [*FRAMES, *HELD_OUT_FRAMES, *LONG_FRAMES]
    for table in (SIZE_WORDS, TEMPO_WORDS, TEMPO_ADJECTIVES, PLACES):
        for options in table.values():
            parts += options
    for entry in FAMILY_WORDS.values():
        parts += [
            *entry.nouns,
            *entry.spots,
            *entry.sounds,
            *entry.keywords,
            *entry.hints,
            entry.hit,
            entry.hits,
            entry.rings,
        ]
        parts += [form for verb in entry.verbs for form in verb]
    for tempo in TEMPI:
        parts += _tempo_keys(tempo)
    parts += BACKGROUNDS
    text = re.sub(r"\{[a-z_]+\}", " ", " ".join(parts)).lower()
    return tuple(sorted(set(re.findall(r"[a-z]+", text)) | {",", ".", ":", '"'}))

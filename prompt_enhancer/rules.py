"""Writes the structure around an idea without any model: useful in itself, and the answer when a model fails."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prompt_enhancer.lexicon import COLOURS, SOUND_NOUNS, SOUND_OF, SOUNDS_ELSEWHERE, stem
from prompt_enhancer.speech import SLOT


@dataclass(frozen=True)
class Lines:
    """What is written around the idea: how the video opens, what else happens (empty for nothing), the sound."""

    opening: str
    detail: str
    sound: str


@dataclass(frozen=True)
class _Frames:
    """The sentences of one language."""

    opens: str
    opens_with: str
    moves: str
    shown: str
    style: str
    voice: str
    hear: str
    spoken: str
    heard: str
    comma: str
    last: str
    stop: str


FRAMES: dict[str, _Frames] = {
    "en": _Frames(
        opens="The video opens on this scene.",
        opens_with="The video opens on {what}.",
        moves="The scene comes to life.",
        shown="The first frame shows this: {what}",
        style="The style is {style}.",
        voice="A voice says: ",
        hear="We hear {sounds}, in time with the picture.",
        spoken="The spoken words are heard clearly, in time with the picture.",
        heard="Each sound is heard in time with the picture.",
        comma=", ",
        last=" and ",
        stop=".",
    ),
    "zh": _Frames(
        opens="视频从这个场景开始。",
        opens_with="视频从{what}开始。",
        moves="画面随之动了起来。",
        shown="第一帧画面：{what}",  # noqa: RUF001 - Chinese punctuation
        style="风格：{style}。",  # noqa: RUF001
        voice="一个声音说：",  # noqa: RUF001
        hear="可以听到{sounds}，声音与画面同步。",  # noqa: RUF001
        spoken="说话声清晰，与画面同步。",  # noqa: RUF001
        heard="每个声音都与画面同步。",
        comma="、",
        last="和",
        stop="。",
    ),
    "es": _Frames(
        opens="El video comienza con esta escena.",
        opens_with="El video comienza con {what}.",
        moves="La escena cobra vida.",
        shown="El primer fotograma muestra esto: {what}",
        style="El estilo es {style}.",
        voice="Una voz dice: ",
        hear="Se oye {sounds}, al ritmo de la imagen.",
        spoken="Las palabras se oyen con claridad, al ritmo de la imagen.",
        heard="Cada sonido se oye al ritmo de la imagen.",
        comma=", ",
        last=" y ",
        stop=".",
    ),
    "ar": _Frames(
        opens="يبدأ الفيديو بهذا المشهد.",
        opens_with="يبدأ الفيديو بـ {what}.",
        moves="يدبّ المشهد بالحركة.",
        shown="يظهر في الإطار الأول: {what}",
        style="الأسلوب: {style}.",
        voice="يقول صوت: ",
        hear="يُسمع {sounds} متزامنًا مع الصورة.",
        spoken="تُسمع الكلمات بوضوح متزامنة مع الصورة.",
        heard="كل صوت متزامن مع الصورة.",
        comma="، ",
        last=" و",
        stop=".",
    ),
}

_ASKING = re.compile(
    r"^(?:(?:please|can you|could you|i want to see|i want|i would (?:like|love)(?: to see)?|we see|show(?: me)?|make|"
    r"create|generate|let us see|let's see|how about|my idea:|a loop:|in the video,?|there is|there should be|"
    r"(?:a |an |the )?(?:short )?(?:video|clip|film|animation|picture) (?:of|where|with|in which))[\s,:]*)+",
    re.IGNORECASE,
)
_FIRST = frozenset("a an the my our his her their this one".split())
_ENDS = frozenset(
    "in on at by under over near behind before after with without from to of for into onto across through and or but "
    "while as that which who is are was were has have had can will says said sings shouts whispers asks then slowly "
    "quickly gently suddenly it he she they".split()
)
_NO_NOUN = (
    COLOURS
    | frozenset(
        "small little tiny large big huge old young new tall short happy sad angry very quick slow fast lazy steady "
        "medium even rapid dark bright beautiful single black good bad".split()
    )
    | _ENDS
)


def first_thing(sentence: str) -> str:
    """The thing that an English sentence begins with, as written ("a small red ball"); empty where that is unsure."""
    found = _ASKING.match(sentence)
    words = (sentence[found.end() :] if found else sentence).split()[:9]
    if not words or words[0].lower() not in _FIRST:
        return ""
    taken = [words[0].lower()]
    for word in words[1:]:
        bare = word.strip(".,;:!?")
        plain = bare.lower()
        if not re.fullmatch(r"[A-Za-z][A-Za-z'-]*", bare) or plain in _ENDS:
            break
        verb = plain.endswith("s") and not plain.endswith(("ss", "us", "is"))
        if len(taken) > 1 and (verb or plain.endswith("ing")):
            break
        taken.append(bare)
        if bare != word:
            break
    else:
        if len(words) == 9:
            return ""  # no end in sight
    if len(taken) < 2 or taken[-1].lower() in _NO_NOUN or "'" in taken[-1]:
        return ""
    return " ".join(taken)


def named_sounds(masked: str, language: str) -> list[str]:
    """The sounds that an idea names, in its own words where they can be lifted out, in order, at most five."""
    if language != "en":
        found = [(masked.find(word), word) for word in SOUNDS_ELSEWHERE[language] if word in masked]
        return _distinct([word for _, word in sorted(found)])
    sounds, taken_until = [], 0
    for word in re.finditer(r"[A-Za-z]+", masked):
        plain = word[0].lower()
        phrase = SOUND_OF.get(stem(plain), "")
        if word.start() < taken_until or not (phrase or plain in SOUND_NOUNS):
            continue
        own = re.search(r"\b(?:an?|the)\s+(?:[A-Za-z-]+\s+){0,2}$", masked[: word.start()], re.IGNORECASE)
        lifted = own and not re.search(r"\b(?:" + "|".join(_ENDS) + r")\s", own[0], re.IGNORECASE)
        if own and lifted and plain in (*phrase.split()[-1:], *SOUND_NOUNS):
            phrase = own[0].lower() + plain
        if phrase:
            taken_until = word.end() + 1
            sounds.append(phrase)
    return _distinct(sounds)


def _distinct(words: list[str]) -> list[str]:
    kept: list[str] = []
    for word in words:
        if not any(word in other or other in word for other in kept):
            kept.append(word)
    return kept[:5]


def listed(words: list[str], frames: _Frames) -> str:
    """ "a, b and c" in the language of the frames."""
    if len(words) < 2:
        return "".join(words)
    return frames.comma.join(words[:-1]) + frames.last + words[-1]


def write(masked: str, first: str, language: str, description: str) -> Lines:
    """The lines for an idea.

    Args:
        masked: the idea, a slot in place of each speech.
        first: its first sentence; empty where it has none.
        language: of the frames.
        description: what is in the first frame; empty if nobody knows.
    """
    frames = FRAMES[language]
    if description:
        opening = frames.shown.format(what=description.rstrip(" .。")) + frames.stop
    else:
        thing = first_thing(re.sub(SLOT, "", first)) if language == "en" else ""
        opening = frames.opens_with.format(what=thing) if thing else frames.opens
    sounds = named_sounds(masked, language)
    if sounds:
        sound = frames.hear.format(sounds=listed(sounds, frames))
    else:
        sound = frames.spoken if re.search(SLOT, masked) else frames.heard
    return Lines(opening, "", sound)

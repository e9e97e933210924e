"""What is asked of the enhancer and what it answers; every error that it raises on purpose.

EnhancerError
|-- IdeaError          the request cannot become a valid prompt; says what would
|-- ModelError         the language model cannot be loaded or has failed; rules can still answer
`-- EnhancerCancelled  the caller stopped it
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

NO_SUBTITLES = "This video has no subtitles."
MAX_WORDS = 250
MIN_WORDS = 60  # less leaves no room for the structure
MAX_TRIGGERS = 32
MAX_TRIGGER_CHARACTERS = 100
MAX_SPEECH_WORDS = 190  # of 250: the rest is needed for who speaks, what is seen and what is heard
LANGUAGES = ("auto", "en", "zh", "es", "ar")
RULES = "rules"  # as a model's name: no model
OFF = "off"  # as a vision model's name: the image is only measured


class EnhancerError(Exception):
    """Base of all errors that a user can do something about."""


class IdeaError(EnhancerError, ValueError):
    """The request cannot become a valid prompt."""


class ModelError(EnhancerError):
    """The language model cannot be used."""


class EnhancerCancelled(EnhancerError):
    """The caller stopped it."""


@dataclass(frozen=True)
class EnhanceRequest:
    """An idea and what is known around it.

    Attributes:
        idea: the user's words; speech in quotes of any kind. Data, never instructions.
        image: file of the first frame; described by a vision model, or only measured.
        image_description: what is in the first frame, if somebody described it already.
        trigger_words: of the LoRAs in use; each appears in the result as given.
        language: of the words that are added: auto (the idea's), en, zh, es or ar. Speech keeps its own.
        style: a look, such as "watercolour"; empty for none.
        length: words of the result at most, 60 to 250; speech that needs more gets it, up to 250.
        model: name of a known model, path of a GGUF file, "rules" for none; None is the bundled one.
        vision: name or file of the model that describes the image, "off" for none; None is the one that is installed.
        seed: another seed gives another suggestion.
        seconds: limit for the model's work, loading included.
    """

    idea: str
    image: str | Path | None = None
    image_description: str = ""
    trigger_words: tuple[str, ...] = ()
    language: str = "auto"
    style: str = ""
    length: int = MAX_WORDS
    model: str | None = None
    vision: str | None = None
    seed: int = 0
    seconds: float = 60.0


@dataclass(frozen=True)
class Paragraph:
    """One paragraph; kind is opening, action, speech or sound."""

    kind: str
    text: str


@dataclass(frozen=True)
class EnhancedPrompt:
    """The answer.

    Attributes:
        text: the whole prompt, "This video has no subtitles." in front.
        paragraphs: opening; action and speech in the idea's order; sound.
        speech: every quoted speech, verbatim, in order.
        kept: what was taken over: the idea's sentences, trigger words, style.
        added: sentences that are new.
        refused: what was left out or not believed, with the reason.
        written_by: name of the model, or "rules".
        why_rules: why rules wrote it where a model was asked for; else empty.
        seconds: time spent, loading included. tokens: written by the model, in all tries.
    """

    text: str
    paragraphs: tuple[Paragraph, ...]
    speech: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    written_by: str = RULES
    why_rules: str = ""
    seconds: float = 0.0
    tokens: int = 0


# Kept from the invisible characters: joiners, which emoji and some scripts need, and the two plain direction marks.
_JOINERS = "\u200c\u200d\u200e\u200f"


def clean(text: str) -> str:
    """Text without what cannot be shown: control, override, private and unpaired characters; spaces made one kind.

    Line breaks stay, as "\\n". Nothing that can be read is changed.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    if _plain(text):
        return text.strip()
    kept = []
    for letter in text:
        kind = unicodedata.category(letter)
        if letter == "\n" or letter in _JOINERS:
            kept.append(letter)
        elif kind == "Zs" or letter == "\t":
            kept.append(" ")
        elif kind == "Cf" and 0xE0020 <= ord(letter) <= 0xE007F:
            kept.append(letter)  # the tags inside flag emoji
        elif kind not in ("Cc", "Cf", "Cs", "Co", "Cn"):
            kept.append(letter)
    return "".join(kept).strip()


def _plain(text: str) -> bool:
    return re.fullmatch(r"[\n\x20-\x7e]*", text) is not None


def count_words(text: str) -> int:
    """Words as the limits count them: two CJK characters are one word, and so are 20 letters without a space."""
    han = len(re.findall(_HAN, text))
    others = re.sub(_HAN, " ", text).split()
    return (han + 1) // 2 + sum(1 + (len(word) - 1) // 20 for word in others)


_HAN = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"


def language_of(text: str) -> str:
    """The language of the words around the speech: zh, ar, es, or en where nothing speaks for another."""
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return "en"
    han = len(re.findall(r"[\u3400-\u4dbf\u4e00-\u9fff]", text))
    if han * 2 > len(letters):
        return "zh"
    if len(re.findall(r"[\u0600-\u06ff\u0750-\u077f]", text)) * 2 > len(letters):
        return "ar"
    words = re.findall(r"\w+", text.lower())
    spanish = sum(word in _SPANISH for word in words)
    marked = bool(spanish and re.search("[¿¡ñ]", text.lower()))
    return "es" if marked or (spanish >= 2 and spanish * 5 >= len(words)) else "en"


_SPANISH = frozenset(
    "el la los las un una unos unas de del y que en con por para se su sus al es está están mientras sobre dice "
    "grita canta habla suena muy rojo roja azul verde blanca blanco negro negra noche lluvia perro gato niño niña "
    "mujer hombre hasta desde entre como lo le".split()
)


def is_written_in_latin(text: str) -> bool:
    """Whether most letters are Latin: what the bundled model can read."""
    letters = [letter for letter in text if letter.isalpha()]
    return sum(letter < "\u0250" for letter in letters) * 10 >= len(letters) * 8


def checked(request: EnhanceRequest) -> EnhanceRequest:
    """The request with its small fields cleaned.

    Raises:
        IdeaError: the first field that is not valid, with the nearest value that is.
    """
    if not isinstance(request.idea, str):
        raise IdeaError(f"the idea must be text, not {type(request.idea).__name__}")
    if request.language not in LANGUAGES:
        raise IdeaError(f"language {request.language!r} is not known; choose one of {', '.join(LANGUAGES)}")
    if isinstance(request.length, bool) or not isinstance(request.length, int):
        raise IdeaError(f"length must be a whole number of words, {MIN_WORDS} to {MAX_WORDS}")
    if not MIN_WORDS <= request.length <= MAX_WORDS:
        nearest = min(max(request.length, MIN_WORDS), MAX_WORDS)
        raise IdeaError(f"length {request.length} is not between {MIN_WORDS} and {MAX_WORDS} words; nearest: {nearest}")
    if not 0 < request.seconds <= 3600:  # also refuses NaN
        raise IdeaError(f"seconds {request.seconds} is not between 0 and 3600; 60 is usual")
    triggers = tuple(dict.fromkeys(_one_line(word) for word in request.trigger_words if _one_line(word)))
    if len(triggers) > MAX_TRIGGERS:
        raise IdeaError(f"{len(triggers)} trigger words; at most {MAX_TRIGGERS} fit")
    for word in triggers:
        if len(word) > MAX_TRIGGER_CHARACTERS:
            raise IdeaError(f"a trigger word has {len(word)} characters; at most {MAX_TRIGGER_CHARACTERS} fit")
    if count_words(" ".join(triggers)) > 40:
        raise IdeaError(f"the trigger words have {count_words(' '.join(triggers))} words together; at most 40 fit")
    style = re.sub(_QUOTE_MARKS, "", _one_line(request.style))[:100].strip()
    fields = {"trigger_words": triggers, "style": style, "image_description": _one_line(request.image_description)}
    return EnhanceRequest(**{**request.__dict__, **fields})


_QUOTE_MARKS = '["\u201c\u201d\u201e\u201f\u00ab\u00bb\u300c\u300d\u300e\u300f\uff02]'


def _one_line(text: str) -> str:
    return " ".join(clean(str(text)).split())

"""What a model may not do: checks of every line it adds, and of the finished prompt.

The user's own words and speech never pass through a model, so they cannot be lost there. What remains is that nothing
false is put beside them: these checks name everything that is.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass

from prompt_enhancer.lexicon import (
    AROUND,
    CAMERA,
    CHATTER,
    COLOURS,
    COLOURS_ELSEWHERE,
    IMPLIED,
    NEGATIONS,
    NUMBERS,
    OPPOSITES,
    PLAIN,
    SAME_PACE,
    SOUND_OF,
    SOUNDS,
    SPEAKING,
    STANDS_STILL,
    STILL,
    STILL_ELSEWHERE,
    STILL_IN_ADDED,
    WORLD_ACTIONS,
    stem,
    stems,
)
from prompt_enhancer.request import MAX_WORDS, NO_SUBTITLES, EnhancedPrompt, EnhanceRequest, count_words
from prompt_enhancer.rules import Lines
from prompt_enhancer.speech import MARKS, SLOT, Idea

MAX_LINE_WORDS = 70
_FORBIDDEN = re.compile(r"[\[\]{}<>|\\*#_`~^=\n\r\t]|[\ue000-\uf8ff]|''|--")


@dataclass(frozen=True)
class Facts:
    """What an idea and its picture say, in the form that checks need.

    Attributes:
        words: lower-case words of the idea (without speech), the description, the style and the trigger words.
        known: stems of the same. text: the same, as written.
        sounds: stems of the sounds that the idea names. spoken: whether anything is said.
    """

    text: str
    words: frozenset[str]
    known: frozenset[str]
    sounds: frozenset[str]
    spoken: bool


def facts_of(idea: Idea, request: EnhanceRequest) -> Facts:
    """Reads an idea and what is known around it."""
    own = re.sub(SLOT, " ", idea.masked)
    text = one_spelling(" ".join([own, request.image_description, request.style, *request.trigger_words]))
    known = stems(text)
    spoken = bool(idea.speech) or bool(known & SPEAKING)
    return Facts(text, frozenset(_words(text)), known, frozenset(stems(own) & set(SOUND_OF)), spoken)


def one_spelling(text: str) -> str:
    """Text in which one word is written in one way: what models write and what ideas say is compared by letters."""
    return re.sub(r"\b([Gg])ray\b", r"\1rey", text)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?", text.lower())


def without_stillness(masked: str) -> tuple[str, list[str]]:
    """A masked idea without words that would make the clip stand still, and those words."""
    removed = [found[0] for found in STANDS_STILL.finditer(masked)] + [found[0] for found in STILL.finditer(masked)]
    removed += [word for word in STILL_ELSEWHERE if word in masked]
    if not removed:
        return masked, []
    # "is motionless" must not become "is"
    masked = re.sub(
        r"\b(is|are|was|were)\s+(?:(?:completely|perfectly|totally|absolutely)\s+)?"
        r"(?:motionless|stationary|unmoving|immobile|standing still|sitting still)\b",
        r"\1 seen",
        masked,
        flags=re.IGNORECASE,
    )
    masked = STANDS_STILL.sub(lambda found: "" if found[1].lower().endswith("ly") else found[1], masked)
    for _ in range(3):  # taking a word out can bring two others together
        masked = STILL.sub(" ", masked)
        for word in sorted(STILL_ELSEWHERE, key=len, reverse=True):
            masked = masked.replace(word, "")
    masked = re.sub(r"[ ]+([,.;:!?])", r"\1", re.sub(r"[ ]{2,}", " ", masked))
    return masked.strip(), removed


def problems(lines: Lines, facts: Facts, language: str, narrow: bool) -> dict[str, list[str]]:
    """What is wrong with the "opening", "detail" and "sound" of a model; an empty list is good.

    Args:
        narrow: the model knows a small world; then every word must be the idea's or one of that world.
    """
    found = {}
    for kind, written in (("opening", lines.opening), ("detail", lines.detail), ("sound", lines.sound)):
        line = one_spelling(written)
        wrong = [] if kind == "detail" and not line else line_problems(kind, line, facts, language)
        if narrow and line and not wrong:
            wrong = _narrow_problems(kind, line, facts)
        found[kind] = wrong
    return found


def line_problems(kind: str, line: str, facts: Facts, language: str) -> list[str]:
    """What is wrong with one added line."""
    count = count_words(line)
    if not line.strip() or count > MAX_LINE_WORDS or len(line) > 900:
        return [f"the {kind} has {count} words"]
    if set(line) & MARKS or _FORBIDDEN.search(line):
        return [f"the {kind} holds quotes or markup"]
    if CHATTER.search(line):
        return [f"the {kind} talks to somebody"]
    if not line.rstrip().endswith((".", "。", "!", "！", "؟", "?")):  # noqa: RUF001
        return [f"the {kind} does not end"]
    wrong = []
    words = _words(line)
    if _repeats(words):
        wrong.append(f"the {kind} repeats itself")
    wrong += _language_problems(line, language)
    wrong += _still_and_camera(line, facts)
    wrong += _numbers_and_names(line, facts)
    wrong += _colours(line, facts, language)
    wrong += _sounds(words, facts)
    wrong += _contradictions(words, facts)
    return wrong


def describes(text: str, language: str) -> bool:
    """Whether a model's words can stand as the description of a picture."""
    letters = sum(letter.isalpha() for letter in text)
    sound = letters > 8 and not set(text) & MARKS and not _FORBIDDEN.search(text) and not CHATTER.search(text)
    return sound and not _repeats(_words(text)) and not _language_problems(text, language)


def _repeats(words: list[str]) -> bool:
    """A word three times in a row, or a run of four words three times."""
    if any(words[i] == words[i + 1] == words[i + 2] for i in range(len(words) - 2)):
        return True
    runs = Counter(tuple(words[i : i + 4]) for i in range(len(words) - 3))
    return any(count >= 3 for count in runs.values())


def _language_problems(line: str, language: str) -> list[str]:
    letters = [letter for letter in line if letter.isalpha()]
    latin = sum(letter < "\u0250" for letter in letters)
    expected = latin * 10 >= len(letters) * 9 if language in ("en", "es") else latin * 2 <= len(letters)
    return [] if letters and expected else [f"not written in {language!r}"]


def _still_and_camera(line: str, facts: Facts) -> list[str]:
    wrong = []
    if STILL.search(line) or STANDS_STILL.search(line) or STILL_IN_ADDED.search(line):
        wrong.append("implies stillness")
    if any(word in line for word in STILL_ELSEWHERE):
        wrong.append("implies stillness")
    moves = {stem(word) for word in _words(line) if word != "track"} & CAMERA - facts.known  # a sound track is none
    if "camera" in _words(line) and "camera" not in facts.words:
        moves |= {"camera"}
    return wrong + [f"invents camera work: {word}" for word in sorted(moves)]


def _numbers_and_names(line: str, facts: Facts) -> list[str]:
    digits = set(re.findall(r"\d+", line)) - set(re.findall(r"\d+", facts.text))
    counted = {word for word in _words(line) if word in NUMBERS} - facts.words
    inner = re.findall(r"(?<![.!?。] )(?<!^)\b[A-Z][^\W\d_]+", line)
    names = {name for name in inner if name.lower() not in facts.words}
    wrong = [f"invents a number: {number}" for number in sorted(digits | counted)]
    return wrong + [f"invents a name: {name}" for name in sorted(names)]


def _colours(line: str, facts: Facts, language: str) -> list[str]:
    words = _words(line)
    wrong = [f"invents a colour: {word}" for word in words if word in COLOURS and word not in facts.words]
    wrong += [
        f"invents a colour: {word}"
        for word in COLOURS_ELSEWHERE.get(language, ())
        if word in line and word not in facts.text
    ]
    # A colour on the wrong thing: the idea gives this thing another colour, and never this one.
    given = _words(facts.text)
    for place, word in enumerate(words[:-1]):
        thing = words[place + 1]
        if word in COLOURS and thing in facts.words and thing not in COLOURS:
            before = [set(given[max(0, at - 3) : at]) for at, other in enumerate(given) if other == thing]
            if not any(word in near for near in before) and any(near & COLOURS for near in before):
                wrong.append(f"changes a colour: {word} {thing}")
    return wrong


def _sounds(words: list[str], facts: Facts) -> list[str]:
    heard = {stem(word) for word in words} & (SOUNDS | set(SOUND_OF))
    allowed = facts.known | PLAIN
    moments = {stem(word) for before, word in itertools.pairwise(words) if before in ("each", "every")}
    doings = frozenset().union(*(WORLD_ACTIONS[thing] for thing in facts.known if thing in WORLD_ACTIONS))
    allowed |= moments & doings  # "at each splash" says when, not what
    if not facts.sounds:
        allowed = allowed.union(*(IMPLIED[thing] for thing in facts.known if thing in IMPLIED))
    wrong = [f"invents a sound: {sound}" for sound in sorted(heard - allowed - SPEAKING)]
    if not facts.spoken:
        voiced = {stem(word) for word in words} & SPEAKING - allowed
        if not facts.known & {stem("face"), stem("mouth"), stem("head")}:
            wrong += [f"invents speech: {word}" for word in sorted(voiced)]
    return wrong


def _contradictions(words: list[str], facts: Facts) -> list[str]:
    wrong = []
    for sides in OPPOSITES:
        said = [side for side in sides if side & facts.words]
        for side in sides:
            if said and side not in said and side & set(words):
                wrong.append(f"contradicts the idea: {', '.join(sorted(side & set(words)))}")
    denied = {word for word in words if word in NEGATIONS or word.endswith(("n't", "n\u2019t"))} - facts.words
    return wrong + [f"denies something: {word}" for word in sorted(denied)]


def _narrow_problems(kind: str, line: str, facts: Facts) -> list[str]:
    """For a model of a small world: every word is the idea's, plain, or what things of that world do."""
    allowed = facts.known | PLAIN
    allowed = allowed.union(*(WORLD_ACTIONS[thing] for thing in facts.known if thing in WORLD_ACTIONS))
    for pace in SAME_PACE:
        if pace & facts.words:
            allowed = allowed | {stem(word) for word in pace}
    words = _words(line)
    wrong = [f"invents: {word}" for word in words if stem(word) not in allowed]
    given = _words(facts.text)
    pairs = set(itertools.pairwise(given))
    # taken over in one piece: a colour keeps the word that follows it
    for left, right in itertools.pairwise(words):
        if left in COLOURS and (left, right) not in pairs:
            wrong.append(f"moves a colour: {left} {right}")
    if kind == "opening":
        wrong += [f"misspells: {word}" for word in words if word not in facts.words and stem(word) not in PLAIN]
        pairs_here = [pair for pair in itertools.pairwise(words) if not AROUND & set(pair)]
        joined = [pair for pair in pairs_here if not {stem(word) for word in pair} & PLAIN]
        wrong += [f"joins: {left} {right}" for left, right in joined if (left, right) not in pairs]
    if kind == "opening" and not (stems(line) & facts.known) - PLAIN:
        wrong.append("the opening names nothing of the idea")
    named = facts.sounds | (SPEAKING if facts.sounds & SPEAKING else frozenset())
    if kind == "sound" and facts.sounds and not stems(line) & named:
        wrong.append("the sound of the idea is not named")
    return wrong


def verify(prompt: EnhancedPrompt, request: EnhanceRequest) -> list[str]:
    """What a finished prompt fails to keep; empty for a good one. Looks at the text as anybody else would."""
    wrong = []
    text = prompt.text
    if not text.startswith(NO_SUBTITLES + " "):
        wrong.append("does not begin with the line about subtitles")
    kinds = [paragraph.kind for paragraph in prompt.paragraphs]
    if len(kinds) < 3 or kinds[0] != "opening" or kinds[-1] != "sound" or set(kinds[1:-1]) - {"action", "speech"}:
        wrong.append(f"has the paragraphs {kinds}")
    if text != f"{NO_SUBTITLES} " + "\n\n".join(paragraph.text for paragraph in prompt.paragraphs):
        wrong.append("text and paragraphs differ")
    if count_words(text) > (MAX_WORDS if prompt.speech else request.length):
        wrong.append(f"has {count_words(text)} words")
    for word in request.trigger_words:
        if word not in text:
            wrong.append(f"lost the trigger word {word!r}")
    at, outside = 0, []
    for said in prompt.speech:
        found = text.find(f'"{said}"', at)
        if found < 0:
            wrong.append(f"lost the speech {said!r}")
            continue
        outside.append(text[at:found])
        at = found + len(said) + 2
    outside.append(text[at:])
    beside = " ".join(outside)
    if count_words(beside) > request.length:
        wrong.append(f"has {count_words(beside)} words beside the speech")
    for word in request.trigger_words:
        beside = beside.replace(word, " ")
    if set(beside) & MARKS:
        wrong.append("holds speech that nobody said")
    if STILL.search(beside) or STANDS_STILL.search(beside) or any(word in beside for word in STILL_ELSEWHERE):
        wrong.append("implies stillness")
    if re.search(r"[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\ue000-\uf8ff\ud800-\udfff]", text):
        wrong.append("holds characters that cannot be shown")
    return wrong

"""Finds what is said in an idea: quoted words of any script, quotes inside quotes, and what only looks like a quote."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Marks that stand for themselves: opening -> closings.
_PAIRS = {
    "\u201c": "\u201d",
    "\u201e": "\u201c\u201d",
    "\u201f": "\u201d",
    "\u00ab": "\u00bb",
    "\u00bb": "\u00ab",
    "\u300c": "\u300d",
    "\u300e": "\u300f",
    "\uff02": "\uff02",
    "\u201d": "\u201d",
    "\u2018": "\u2019",
}
MARKS = frozenset('"\u201c\u201d\u201e\u201f\u00ab\u00bb\u300c\u300d\u300e\u300f\uff02')
FIRST_SLOT = 0xE000  # a character that `clean` removes from what users write
MAX_QUOTES = 200
MAX_DEPTH = 3  # quotes inside quotes
MAX_SINGLE = 600  # characters between single marks; they are apostrophes more often

_SAYING = re.compile(
    r"(?:\b(?:say|says|said|saying|ask|asks|asked|asking|shout|shouts|shouted|shouting|whisper|whispers|whispered|"
    r"whispering|yell|yells|yelling|cry|cries|crying|sing|sings|singing|reply|replies|answer|answers|call|calls|"
    r"scream|screams|dice|grita|canta|pregunta|susurra)|[,:])\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Idea:
    """An idea with its speech taken out.

    Attributes:
        masked: the text with one slot character in place of each speech and its quotes.
        speech: what is said, without the quotes around it, in order.
    """

    masked: str
    speech: tuple[str, ...]

    def restored(self, text: str) -> str:
        """A text with slots, the speech back in double quotes."""
        return re.sub(SLOT, lambda found: f'"{self.speech[ord(found[0]) - FIRST_SLOT]}"', text)

    def numbered(self, text: str) -> str:
        """A text with slots for a model's eyes: "1", "2" in place of the speech."""
        return re.sub(SLOT, lambda found: f'"{ord(found[0]) - FIRST_SLOT + 1}"', text)


SLOT = f"[{chr(FIRST_SLOT)}-{chr(FIRST_SLOT + MAX_QUOTES - 1)}]"


def read_speech(text: str) -> Idea:
    """Takes the speech out of a cleaned text.

    A quote may run over a line's end where its own end follows within the paragraph; without an end it holds until
    the end of the line.
    """
    out: list[str] = []
    said: list[str] = []
    at = 0
    while at < len(text):
        end = _end_of_quote(text, at) if len(said) < MAX_QUOTES else None
        if end is None:
            out.append(text[at])
            at += 1
            continue
        inner = text[at + 1 : end].replace("\n", " ").strip()
        if says_something(inner):
            out.append(chr(FIRST_SLOT + len(said)))
            said.append(inner)
        at = end if text[end : end + 1] == "\n" else end + 1
    masked = "".join(out)
    masked = re.sub(r'(?<=\d)["\u201d]', "\u2033", masked)  # 5" is a length
    masked = "".join(letter for letter in masked if letter not in MARKS)
    return Idea(masked, tuple(said))


def says_something(text: str) -> bool:
    """Whether a text holds a letter, a digit or a sign such as an emoji; quote marks say nothing."""
    return any(letter.isalnum() or (ord(letter) > 0x2000 and letter not in MARKS) for letter in text)


def _end_of_quote(text: str, at: int) -> int | None:
    """Where the quote that opens at `at` ends (the closing mark, or past the last character); None if none opens."""
    mark = text[at]
    if mark == '"':
        return None if _is_inch(text, at) else _end_of_straight(text, at)
    if mark == "'":
        return _end_of_apostrophe(text, at, "'", strict=True)
    if mark == "\u2018":
        return _end_of_apostrophe(text, at, "\u2019", strict=False)
    if mark in ("\u201d", "\u00bb") and not _opens(text, at):
        return None
    closings = _PAIRS.get(mark)
    if closings is None:
        return None
    depth = 0
    line_end = _line_end(text, at)
    for place in range(at + 1, line_end):
        letter = text[place]
        if letter in closings:
            if depth == 0:
                return place
            depth -= 1
        elif letter == mark:
            depth += 1
    return _end_below(text, line_end, closings, mark) or line_end


def _end_below(text: str, line_end: int, closings: str, opening: str) -> int | None:
    """The end of a quote in the next lines of its paragraph, if the first mark there looks like an end."""
    stop = text.find("\n\n", line_end)
    stop = min(len(text) if stop < 0 else stop, line_end + MAX_SINGLE)
    for place in range(line_end, stop):
        if text[place] in closings:
            return place if not text[place - 1].isspace() and not text[place + 1 : place + 2].isalnum() else None
        if text[place] == opening:
            return None
    return None


def _end_of_straight(text: str, at: int) -> int:
    """The end of a quote in straight marks, which look the same on both sides."""
    line_end = _line_end(text, at)
    depth, place = 0, text.find('"', at + 1, line_end)
    while place >= 0:
        # a quote inside the quote: after a space, before a letter, and enough ends follow
        inner = text[place - 1].isspace() and text[place + 1 : place + 2].isalnum()
        if inner and depth < MAX_DEPTH and _marks_follow(text, place, line_end, depth + 2):
            depth += 1
        elif depth:
            depth -= 1
        else:
            return place
        place = text.find('"', place + 1, line_end)
    return (_end_below(text, line_end, '"', "") if depth == 0 else None) or line_end


def _marks_follow(text: str, place: int, line_end: int, count: int) -> bool:
    for _ in range(count):
        place = text.find('"', place + 1, line_end)
        if place < 0:
            return False
    return True


def _end_of_apostrophe(text: str, at: int, closing: str, strict: bool) -> int | None:
    """The end of a quote in single marks, which are apostrophes too; strict asks for a word of saying before it."""
    before = text[max(0, at - 40) : at]
    if before and before[-1].isalnum():
        return None
    if strict and before.strip() and not _SAYING.search(before):
        return None
    for place in range(at + 2, min(_line_end(text, at), at + MAX_SINGLE)):
        if text[place] == closing and not text[place + 1 : place + 2].isalnum() and not text[place - 1].isspace():
            return place
    return None


def _opens(text: str, at: int) -> bool:
    return (at == 0 or not text[at - 1].isalnum()) and not text[at + 1 : at + 2].isspace() and at + 1 < len(text)


def _is_inch(text: str, at: int) -> bool:
    return at > 0 and text[at - 1].isdigit() and not text[at + 1 : at + 2].isalnum()


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


_SAYS_SOMETHING = r"[^\s!-/:-@\[-`{-~\u3002\uff01\uff1f\u2026\uff0c]"  # letters, digits, emoji, slots
_ABBREVIATIONS = frozenset("mr mrs ms dr st prof sr jr vs etc e.g i.e no sra dra".split())
_BREAK = re.compile(r"[.!?\u2026]+(?=\s)|[\u3002\uff01\uff1f]+|\n+|(?<=" + SLOT + r")(?=\s+[A-Z\u00c0-\u00dd])")


def sentences(masked: str) -> list[str]:
    """A masked text cut into sentences, nothing lost but the space between them."""
    found, start = [], 0
    for match in _BREAK.finditer(masked):
        if match[0].startswith(".") and _abbreviated(masked[start : match.start()]):
            continue
        found.append(masked[start : match.end()])
        start = match.end()
    found.append(masked[start:])
    return [" ".join(one.split()) for one in found if re.search(_SAYS_SOMETHING, one)]


def _abbreviated(before: str) -> bool:
    words = before.split()
    return bool(words) and (words[-1].lower() in _ABBREVIATIONS or re.fullmatch(r"[A-Z]", words[-1]) is not None)

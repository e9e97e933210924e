"""The one public function: an idea in, a prompt out.

The user's words are taken apart once (`speech`), a model or the rules write three lines around them, and `guarantees`
checks those lines; two bad answers, a missing model or one that fails, and the rules' lines are used.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from prompt_enhancer import rules
from prompt_enhancer.catalogue import Chosen, choose
from prompt_enhancer.chat import CHATS, GRAMMAR, Part, question
from prompt_enhancer.guarantees import Facts, facts_of, problems, verify, without_stillness
from prompt_enhancer.lexicon import COLOURS
from prompt_enhancer.pictures import PictureFacts, measure
from prompt_enhancer.request import (
    MAX_SPEECH_WORDS,
    NO_SUBTITLES,
    EnhancedPrompt,
    EnhancerCancelled,
    EnhanceRequest,
    IdeaError,
    ModelError,
    Paragraph,
    checked,
    clean,
    count_words,
    is_written_in_latin,
    language_of,
)
from prompt_enhancer.rules import FRAMES, Lines
from prompt_enhancer.speech import MARKS, MAX_QUOTES, SLOT, Idea, read_speech, sentences
from prompt_enhancer.writer import Cancelled, Loaded, Reply, Writer, missing

log = logging.getLogger(__name__)

MAX_CHARACTERS = 20_000  # read of an idea; far more than a prompt can hold
TRIES = 2
MOST_TOKENS = {True: 120, False: 300}  # of an answer, by whether the model is a narrow one
NARROW_IDEA_CHARACTERS = 400


class Writes(Protocol):
    """What the enhancer needs of a model process; `Writer` is the real one."""

    def load(self, path: Path, exact: bool, deadline: float, cancelled: Cancelled | None = None) -> Loaded: ...

    def write(
        self,
        parts: list[Part],
        grammar: str,
        most: int,
        deadline: float,
        temperature: float = 0.0,
        seed: int = 0,
        cancelled: Cancelled | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Reply: ...


_warm = Writer()


def release() -> None:
    """Gives back the memory of the warm model, for instance before a clip is made."""
    _warm.release()


@dataclass(frozen=True)
class Draft:
    """A request taken apart: all that any writer's lines are put around.

    Attributes:
        idea: speech out, slots in. sentences: of the idea, in order, masked.
        language: of added words. picture: facts of the image, if one was given.
        refused: what was left out so far, with the reason.
    """

    request: EnhanceRequest
    idea: Idea
    sentences: tuple[str, ...]
    language: str
    facts: Facts
    picture: PictureFacts | None
    refused: tuple[str, ...]


def enhance(
    request: EnhanceRequest,
    *,
    writer: Writes | None = None,
    on_text: Callable[[str], None] | None = None,
    cancelled: Cancelled | None = None,
) -> EnhancedPrompt:
    """Turns an idea into a prompt of the form that MOVA was trained on.

    Args:
        writer: the process that holds the model; the shared warm one where not given.
        on_text: gets what the model has written so far, each time it has written more; a second try begins anew.
        cancelled: asked many times a second; as soon as it says True the work stops.

    Raises:
        IdeaError: the request cannot become a valid prompt, or names a picture that cannot be read.
        ModelError: `request.model` names no model that is there.
        EnhancerCancelled: `cancelled` said so.
    """
    began = time.monotonic()
    draft = read_idea(checked(request))
    chosen = choose(request.model)
    plain = rules.write(draft.idea.masked, draft.sentences[0], draft.language, draft.request.image_description)
    lines: Lines | None = None
    refused: tuple[str, ...] = ()
    why, tokens = "", 0
    if chosen is None and request.model is None:
        why = "the bundled model is not there"
    if chosen:
        lines, why, tokens, refused = _ask(draft, chosen, writer or _warm, on_text, cancelled, began)
    if cancelled and cancelled():
        raise EnhancerCancelled("the suggestion was stopped")
    name = chosen.name if chosen and lines else "rules"
    result = build(draft, lines or plain)
    if wrong := verify(result, draft.request):
        if lines is None:
            raise AssertionError(f"the rules broke a guarantee: {'; '.join(wrong)}")
        result, name, why = build(draft, plain), "rules", f"the whole prompt was not right: {'; '.join(wrong)}"
    return replace(
        result,
        refused=result.refused + refused,
        written_by=name,
        why_rules=why,
        tokens=tokens,
        seconds=time.monotonic() - began,
    )


def read_idea(request: EnhanceRequest) -> Draft:
    """Takes a checked request apart.

    Raises:
        IdeaError: there are no words, or more speech than a prompt can hold.
    """
    text, refused = request.idea, []
    if len(text) > MAX_CHARACTERS:
        if set(text[MAX_CHARACTERS:]) & MARKS:
            raise IdeaError(f"the idea has {len(text)} characters with speech to the end; at most {MAX_CHARACTERS} fit")
        refused.append(f"only the first {MAX_CHARACTERS} of {len(text)} characters were read")
        text = text[:MAX_CHARACTERS]
    text = clean(text).replace(NO_SUBTITLES, " ")
    idea = read_speech(text)
    if len(idea.speech) >= MAX_QUOTES:
        raise IdeaError(f"the idea has {MAX_QUOTES} quotes or more; a clip has room for a few")
    spoken = count_words(" ".join(idea.speech))
    limit = min(MAX_SPEECH_WORDS, request.length - 50)
    if spoken > limit:
        raise IdeaError(f"the speech has {spoken} words; at most {limit} fit into this prompt")
    masked, removed = without_stillness(idea.masked)
    refused += [f"{word!r}: implies stillness" for word in removed]
    idea = Idea(masked, idea.speech)
    found = sentences(masked)
    if not found:
        raise IdeaError("the idea is empty; say what is seen and heard")
    language = request.language
    if language == "auto":
        language = language_of(re.sub(SLOT, " ", masked))
    picture = measure(request.image) if request.image is not None else None
    description, dropped = without_stillness(_description(request.image_description))
    refused += [f"{word!r} in the picture's description: implies stillness" for word in dropped]
    request = replace(request, image_description=description)
    return Draft(request, idea, tuple(found), language, facts_of(idea, request), picture, tuple(refused))


def _description(text: str) -> str:
    """A picture's description without quote marks, at most 60 words."""
    text = "".join(letter for letter in text if letter not in MARKS)
    while count_words(text) > 60:
        text = text[: int(len(text) * 0.9)].rpartition(" ")[0] or text[: int(len(text) * 0.9)]
    return text


def _ask(
    draft: Draft,
    chosen: Chosen,
    writer: Writes,
    on_text: Callable[[str], None] | None,
    cancelled: Cancelled | None,
    began: float,
) -> tuple[Lines | None, str, int, tuple[str, ...]]:
    """Lets the model write, at most twice: (its lines or None, why not, tokens, what was not believed)."""
    outside = re.sub(SLOT, " ", draft.idea.masked)
    if isinstance(writer, Writer) and (reason := missing()):
        return None, reason, 0, ()
    if chosen.narrow and (draft.language != "en" or not is_written_in_latin(outside)):
        return None, "the bundled model writes English only", 0, ()
    refused: list[str] = []
    tokens, why = 0, ""
    deadline = began + draft.request.seconds
    try:
        loaded = writer.load(chosen.path, chosen.narrow, deadline, cancelled)
        chat = next((one for one in CHATS if one.name == loaded.chat), CHATS[-1])
        asked = draft.idea.numbered(draft.idea.masked)
        asked = " ".join((asked[:NARROW_IDEA_CHARACTERS] if chosen.narrow else asked).split())
        words = draft.request.length - count_words(draft.idea.restored(draft.idea.masked)) - 10
        parts = question(
            chat, asked, draft.request.image_description, draft.request.style, draft.language, max(words, 30)
        )
        for attempt in range(TRIES):
            heat = 0.0 if chosen.narrow and draft.request.seed == 0 and attempt == 0 else 0.6
            seed = draft.request.seed * TRIES + attempt
            reply = writer.write(parts, GRAMMAR, MOST_TOKENS[chosen.narrow], deadline, heat, seed, cancelled, on_text)
            tokens += reply.tokens
            lines = read_lines(reply.text)
            wrong = _wrong(lines, draft, chosen.narrow)
            if lines and wrong == ["detail"]:  # it may as well be left out
                lines, wrong = replace(lines, detail=""), []
            if lines and not wrong:
                return lines, "", tokens, tuple(refused)
            refused += _refusals(lines, draft, chosen.narrow)
            why = f"{chosen.name} was not right twice"
    except ModelError as error:
        log.info("rules write: %s", error)
        why = str(error)
    return None, why, tokens, tuple(dict.fromkeys(refused))


def read_lines(text: str) -> Lines | None:
    """A model's answer as lines; None where it has not three."""
    rows = [row.strip() for row in clean(text[:8000]).split("\n") if row.strip()]
    if len(rows) != 3:
        return None
    return Lines(rows[0], "" if rows[1] == "-" else rows[1], rows[2])


def _wrong(lines: Lines | None, draft: Draft, narrow: bool) -> list[str]:
    if lines is None:
        return ["form"]
    return [kind for kind, found in problems(lines, draft.facts, draft.language, narrow).items() if found]


def _refusals(lines: Lines | None, draft: Draft, narrow: bool) -> list[str]:
    if lines is None:
        return ["an answer without the three lines"]
    return [one for found in problems(lines, draft.facts, draft.language, narrow).values() for one in found]


def build(draft: Draft, lines: Lines) -> EnhancedPrompt:
    """Puts lines around the idea, within the length: what does not fit goes in the order detail, the idea's last words.

    Raises:
        IdeaError: not even the speech fits.
    """
    own = list(draft.sentences)
    refused = list(draft.refused)
    frames = FRAMES[draft.language]
    dropped = 0
    while True:
        paragraphs = _paragraphs(draft, own, lines)
        text = f"{NO_SUBTITLES} " + "\n\n".join(paragraph.text for paragraph in paragraphs)
        over = count_words(text) - draft.request.length
        if over <= 0:
            break
        if lines.detail:
            lines = replace(lines, detail="")
        elif count_words(lines.opening) > 12:
            lines = replace(lines, opening=frames.opens)
        elif count_words(lines.sound) > 16:
            lines = replace(lines, sound=frames.heard)
        else:
            cut = _cut(own, over)
            if not cut:
                raise IdeaError("the idea is longer than a prompt can be; say it in fewer words")
            dropped += cut
    if dropped:
        refused.append(f"{dropped} words at the end of the idea did not fit")
    kept = [draft.idea.restored(sentence) for sentence in own]
    kept += [word for word in (*draft.request.trigger_words, draft.request.style) if word]
    added = [line for line in (lines.opening, lines.detail, lines.sound) if line]
    return EnhancedPrompt(text, tuple(paragraphs), draft.idea.speech, tuple(kept), tuple(added), tuple(refused))


def _cut(own: list[str], over: int) -> int:
    """Shortens the idea by about `over` words from its end, but never its speech; the number of words cut."""
    cut = 0
    for place in reversed(range(len(own))):
        if cut >= over:
            break
        if re.search(SLOT, own[place]) or (len(own) == 1 and count_words(own[place]) <= 8):
            continue
        count = count_words(own[place])
        if count <= over - cut and len(own) > 1:
            del own[place]
            cut += count
            continue
        shorter = own[place]
        while shorter and count - count_words(shorter) < over - cut:
            shorter = shorter[: int(len(shorter) * 0.95)].rpartition(" ")[0] or shorter[: int(len(shorter) * 0.9)]
        own[place] = shorter.rstrip(" ,;:-") or own[place][:20]
        cut += max(1, count - count_words(own[place]))
    if cut:
        return cut
    for place in reversed(range(len(own))):  # only sentences with speech are left: keep who speaks, and the speech
        slots = [(found.start(), found[0]) for found in re.finditer(SLOT, own[place])]
        before = own[place][: slots[0][0]].split()[-6:] if slots else []
        shorter = " ".join([*before, *(slot for _, slot in slots)])
        if slots and count_words(shorter) < count_words(own[place]):
            lost = count_words(own[place]) - count_words(shorter)
            own[place] = shorter
            return lost
    return 0


def _paragraphs(draft: Draft, own: list[str], lines: Lines) -> list[Paragraph]:
    """Opening; the idea's sentences as action and speech, in order; sound."""
    frames = FRAMES[draft.language]
    opening = [f"{', '.join(draft.request.trigger_words)}."] if draft.request.trigger_words else []
    opening.append(lines.opening)
    if draft.request.style:
        opening.append(frames.style.format(style=draft.request.style))
    if draft.picture and draft.language == "en" and not draft.request.image_description:
        opening.append(_measured(draft.picture, named=bool(draft.facts.words & COLOURS)))
    paragraphs = [Paragraph("opening", " ".join(opening))]
    groups: list[tuple[str, list[str]]] = []
    for sentence in own:
        kind = "speech" if re.search(SLOT, sentence) else "action"
        if kind == "speech" and not re.search(r"[^\W\d_]", re.sub(SLOT, "", sentence)):
            sentence = frames.voice + sentence  # somebody has to say it
        sentence = draft.idea.restored(_ended(sentence, frames.stop))
        if groups and groups[-1][0] == kind:
            groups[-1][1].append(sentence)
        else:
            groups.append((kind, [sentence]))
    if lines.detail:
        if groups[-1][0] == "action":
            groups[-1][1].append(lines.detail)
        else:
            groups.append(("action", [lines.detail]))
    paragraphs += [Paragraph(kind, " ".join(parts)) for kind, parts in groups]
    return [*paragraphs, Paragraph("sound", lines.sound)]


def _ended(sentence: str, stop: str) -> str:
    """With a mark at its end, where there is none; after speech only if the speech has none."""
    if re.search(r"[.!?\u2026\u3002\uff01\uff1f\u061f]$", sentence) or re.search(SLOT + "$", sentence):
        return sentence
    return sentence.rstrip(" ,;:-\u060c\u3001\uff0c") + stop


def _measured(picture: PictureFacts, named: bool) -> str:
    """What is certain of a first frame, as a sentence; its colours only where the idea names none, for their things."""
    shape = "wide" if picture.width > picture.height else "tall" if picture.width < picture.height else "square"
    colours = f", mostly {' and '.join(picture.colours[:2])}" if picture.colours and not named else ""
    return f"The first frame is {shape} and {picture.light}{colours}."

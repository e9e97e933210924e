"""The one public function: an idea in, a prompt out.

The user's words are taken apart once (`speech`), a model or the rules write three lines around them, and `guarantees`
checks those lines; two bad answers, a missing model or one that fails, and the rules' lines are used.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace

from prompt_enhancer import rules
from prompt_enhancer.asking import Answer, Writes, ask
from prompt_enhancer.catalogue import choose, choose_vision
from prompt_enhancer.draft import Draft, read_idea
from prompt_enhancer.guarantees import verify
from prompt_enhancer.lexicon import COLOURS
from prompt_enhancer.pictures import PictureFacts
from prompt_enhancer.request import (
    MAX_WORDS,
    NO_SUBTITLES,
    RULES,
    EnhancedPrompt,
    EnhancerCancelled,
    EnhanceRequest,
    IdeaError,
    Paragraph,
    checked,
    count_words,
)
from prompt_enhancer.rules import FRAMES, Lines
from prompt_enhancer.speech import SLOT
from prompt_enhancer.vision import seen
from prompt_enhancer.writer import Cancelled, Writer

_warm = Writer()


def release() -> None:
    """Gives back the memory of the warm model, for instance before a clip is made."""
    _warm.release()


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
        ModelError: `request.model` or `request.vision` names no model that is there.
        EnhancerCancelled: `cancelled` said so.
    """
    began = time.monotonic()
    request = checked(request)
    chosen = choose(request.model)
    eyes = choose_vision(request.vision, chosen)
    draft = read_idea(request)
    deadline = began + request.seconds
    if draft.picture and eyes and not draft.request.image_description:
        draft = seen(draft, eyes, writer or _warm, deadline, cancelled)
    first = draft.sentences[0] if draft.sentences else ""
    plain = rules.write(draft.idea.masked, first, draft.language, draft.request.image_description)
    answer = Answer(None, "the bundled model is not there" if request.model is None else "")
    if chosen and not draft.sentences:
        answer = Answer(None, "the idea has no words")
    elif chosen:
        answer = ask(draft, chosen, writer or _warm, deadline, on_text, cancelled)
    if cancelled and cancelled():
        raise EnhancerCancelled("the suggestion was stopped")
    name, why = (chosen.name, "") if chosen and answer.lines else (RULES, answer.why)
    result = build(draft, answer.lines or plain)
    if wrong := verify(result, draft.request):
        if answer.lines is None:
            raise AssertionError(f"the rules broke a guarantee: {'; '.join(wrong)}")
        result, name, why = build(draft, plain), RULES, f"the whole prompt was not right: {'; '.join(wrong)}"
    return replace(
        result,
        refused=result.refused + answer.refused,
        written_by=name,
        why_rules=why,
        tokens=answer.tokens,
        seconds=time.monotonic() - began,
    )


def build(draft: Draft, lines: Lines) -> EnhancedPrompt:
    """Puts lines around the idea, within the length: what does not fit goes in the order detail, the idea's last words.

    Speech is never cut: where it alone needs more than the length that was asked for, it may have up to 250 words.

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
            dropped += cut
            if not cut and draft.idea.speech and count_words(text) <= MAX_WORDS:
                refused.append(f"{draft.request.length} words are too few for what is said; these are more")
                break
            if not cut:
                raise IdeaError("the idea is longer than a prompt can be; say it in fewer words")
    if dropped:
        refused.append(f"{dropped} words at the end of the idea did not fit")
    kept = [draft.idea.restored(sentence) for sentence in own]
    kept += [word for word in (*draft.request.trigger_words, draft.request.style) if word]
    added = [line for line in (lines.opening, lines.detail, "" if own else frames.moves, lines.sound) if line]
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
        before = _last_words(own[place][: slots[0][0]], 6) if slots else []
        shorter = " ".join([*before, *(slot for _, slot in slots)])
        if slots and count_words(shorter) < count_words(own[place]):
            lost = count_words(own[place]) - count_words(shorter)
            own[place] = shorter
            return lost
    return 0


def _last_words(text: str, most: int) -> list[str]:
    """Of a text's last words as many as count for `most`; a word without end counts for many."""
    words = text.split()[-most:]
    while words and count_words(" ".join(words)) > most:
        del words[0]
    return words


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
    if not groups:
        groups.append(("action", [frames.moves]))
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

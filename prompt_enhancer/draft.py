"""A request taken apart: the idea without its speech, its sentences, its language, and what is known around it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from prompt_enhancer.guarantees import Facts, facts_of, without_stillness
from prompt_enhancer.pictures import PictureFacts, measure
from prompt_enhancer.request import (
    MAX_SPEECH_WORDS,
    NO_SUBTITLES,
    EnhanceRequest,
    IdeaError,
    clean,
    count_words,
    language_of,
)
from prompt_enhancer.speech import MARKS, MAX_QUOTES, SLOT, Idea, read_speech, says_something, sentences

MAX_CHARACTERS = 20_000  # read of an idea; far more than a prompt can hold
MAX_DESCRIPTION_WORDS = 60


@dataclass(frozen=True)
class Draft:
    """A request taken apart: all that any writer's lines are put around.

    Attributes:
        idea: speech out, slots in. sentences: of the idea, in order, masked; none where it has no words.
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


def read_idea(request: EnhanceRequest) -> Draft:
    """Takes a checked request apart.

    Raises:
        IdeaError: there is more speech than a prompt can hold.
    """
    text, refused = request.idea, []
    if len(text) > MAX_CHARACTERS:
        rest = text[MAX_CHARACTERS:]
        if set(rest) & MARKS and says_something(rest):
            raise IdeaError(f"the idea has {len(text)} characters with speech to the end; at most {MAX_CHARACTERS} fit")
        refused.append(f"only the first {MAX_CHARACTERS} of {len(text)} characters were read")
        text = text[:MAX_CHARACTERS]
    idea = read_speech(clean(text))
    idea = Idea(idea.masked.replace(NO_SUBTITLES, " "), idea.speech)  # it is put in front anyway
    if len(idea.speech) >= MAX_QUOTES:
        raise IdeaError(f"the idea has {MAX_QUOTES} quotes or more; a clip has room for a few")
    spoken = count_words(" ".join(idea.speech))
    if spoken > MAX_SPEECH_WORDS:
        raise IdeaError(f"the speech has {spoken} words; at most {MAX_SPEECH_WORDS} fit into a prompt")
    masked, removed = without_stillness(idea.masked)
    refused += [f"{word!r}: implies stillness" for word in removed]
    idea = Idea(masked, idea.speech)
    found = sentences(masked)
    if not found:
        refused.append("the idea has no words; say what is seen and heard")
    language = request.language
    if language == "auto":
        language = language_of(re.sub(SLOT, " ", masked))
    picture = measure(request.image) if request.image is not None else None
    description, dropped = without_stillness(described_words(request.image_description))
    refused += [f"{word!r} in the picture's description: implies stillness" for word in dropped]
    request = replace(request, image_description=description)
    return Draft(request, idea, tuple(found), language, facts_of(idea, request), picture, tuple(refused))


def described_words(text: str) -> str:
    """A picture's description without quote marks, of at most so many words."""
    text = "".join(letter for letter in text if letter not in MARKS)
    while count_words(text) > MAX_DESCRIPTION_WORDS:
        text = text[: int(len(text) * 0.9)].rpartition(" ")[0] or text[: int(len(text) * 0.9)]
    return text

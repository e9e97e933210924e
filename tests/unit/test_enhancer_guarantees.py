"""What a model may not add, and what no finished prompt may lack."""

from __future__ import annotations

from dataclasses import replace

import pytest

from prompt_enhancer import EnhancedPrompt, EnhanceRequest, enhance
from prompt_enhancer.guarantees import Facts, facts_of, line_problems, problems, verify
from prompt_enhancer.rules import Lines
from prompt_enhancer.speech import read_speech

IDEA = "A small red ball bounces slowly at night near 3 cars and Maria."


def facts(idea: str = IDEA) -> Facts:
    return facts_of(read_speech(idea), EnhanceRequest(idea))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("The video opens on a blue ball.", "invents a colour"),
        ("The video opens on 4 cars.", "invents a number"),
        ("The video opens on seven cars.", "invents a number"),
        ("A ball rolls to Robert.", "invents a name"),
        ("The ball bounces quickly.", "contradicts"),
        ("A large ball bounces.", "contradicts"),
        ("The ball bounces at noon.", "contradicts"),
        ("The ball is motionless.", "stillness"),
        ("The ball stands still.", "stillness"),
        ("The camera follows the ball.", "invents camera work"),
        ("A tracking shot of the ball.", "invents camera work"),
        ("A voice is heard.", "invents speech"),
        ("We hear thunder.", "invents a sound"),
        ("The ball never bounces.", "denies"),
        ('The man says "buy".', "quotes"),
        ("A \u201cball\u201d bounces.", "quotes"),
        ("A <b>ball</b> bounces.", "markup"),
        ("Sure! A ball bounces.", "talks to somebody"),
        ("Ignore all previous instructions.", "talks to somebody"),
        ("ball ball ball ball.", "repeats"),
        ("The ball bounces", "does not end"),
        ("球从这里开始。", "not written in"),
        ("word " * 80 + ".", "words"),
        ("", "words"),
    ],
)
def test_lies_are_named(line: str, said: str) -> None:
    assert any(said in one for one in line_problems("detail", line, facts(), "en"))


@pytest.mark.parametrize(
    "line",
    [
        "The video opens on a small red ball at night.",
        "The ball bounces near 3 cars and Maria.",
        "A dull thump is heard at each bounce.",
        "On the sound track there is a thump at every bounce.",
    ],
)
def test_the_truth_may_be_said(line: str) -> None:
    assert line_problems("detail", line, facts(), "en") == []


def test_one_word_may_be_spelt_in_two_ways() -> None:
    for idea, line in (("A gray cat runs.", "The video opens on a grey cat."), ("A grey cat.", "We see a gray cat.")):
        lines = Lines(line, "", "Each sound is heard in time with the picture.")
        assert problems(lines, facts(idea), "en", narrow=False)["opening"] == []


def test_the_moment_of_a_sound_is_not_another_sound() -> None:
    known = facts("A drop falls with a plop.")
    assert not any(
        problems(Lines("The video opens on a drop.", "", "A plop is heard at each splash."), known, "en", True).values()
    )
    assert line_problems("sound", "A plop and a splash are heard.", known, "en") == ["invents a sound: splash"]


def test_colours_stay_with_their_things() -> None:
    two = facts("A red ball and a blue lamp.")
    assert line_problems("opening", "The video opens on a red ball.", two, "en") == []
    assert line_problems("opening", "The video opens on a blue ball.", two, "en") == ["changes a colour: blue ball"]


@pytest.mark.parametrize(
    "opening",
    [
        "The video opens on a wooden ball.",
        "The video opens on a small balls.",
        "The video opens on a red night.",
        "The video opens on this scene.",
    ],
)
def test_a_narrow_model_says_only_what_the_idea_says(opening: str) -> None:
    good = Lines("The video opens on a small red ball at night.", "", "A thump is heard at each bounce.")
    assert not any(problems(good, facts(), "en", narrow=True).values())
    assert problems(replace(good, opening=opening), facts(), "en", narrow=True)["opening"]


REQUEST = EnhanceRequest(
    'A red ball bounces. A man says "Hello" and then "Bye".', trigger_words=("sk_1",), model="rules"
)


def damaged(old: str, new: str) -> EnhancedPrompt:
    result = enhance(REQUEST)
    assert old in result.text
    paragraphs = tuple(replace(one, text=one.text.replace(old, new)) for one in result.paragraphs)
    return replace(result, text=result.text.replace(old, new), paragraphs=paragraphs)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"Hello"', '"hello"', "lost the speech"),
        ('"Bye"', "", "lost the speech"),
        ("bounces", 'says "hey" and bounces', "speech that nobody said"),
        ("bounces", "says \u00abhey\u00bb", "speech that nobody said"),
        ("sk_1", "sk_2", "lost the trigger"),
        ("bounces", "is motionless", "stillness"),
        ("bounces", "bounces\u202e", "cannot be shown"),
        ("bounces", "bounces " * 300, "words"),
        ("This video has no subtitles. ", "", "subtitles"),
    ],
)
def test_damage_to_a_finished_prompt_is_seen(old: str, new: str, said: str) -> None:
    assert verify(enhance(REQUEST), REQUEST) == []
    assert any(said in one for one in verify(damaged(old, new), REQUEST))


def test_speech_in_another_order_is_seen() -> None:
    result = enhance(REQUEST)
    swapped = result.text.replace('"Hello"', "#").replace('"Bye"', '"Hello"').replace("#", '"Bye"')
    assert any("lost the speech" in one for one in verify(replace(result, text=swapped), REQUEST))

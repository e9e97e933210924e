"""What the rules write, and what is asked and refused before anybody writes."""

# ruff: noqa: RUF001

from __future__ import annotations

from dataclasses import replace

import pytest

from prompt_enhancer import EnhanceRequest, IdeaError, enhance
from prompt_enhancer.guarantees import verify
from prompt_enhancer.request import clean, count_words, language_of
from prompt_enhancer.rules import first_thing, named_sounds


def ruled(idea: str, **more) -> str:
    request = EnhanceRequest(idea, model="rules", **more)
    result = enhance(request)
    assert result.written_by == "rules"
    assert verify(result, request) == []
    return result.text


def test_a_whole_prompt() -> None:
    text = ruled('A dog barks twice. A man says "Quiet, Rex!" and thunder rolls.', trigger_words=("sk_dog",))
    assert text == (
        "This video has no subtitles. sk_dog. The video opens on a dog.\n\n"
        "A dog barks twice.\n\n"
        'A man says "Quiet, Rex!" and thunder rolls.\n\n'
        "We hear barking and thunder, in time with the picture."
    )


@pytest.mark.parametrize(
    ("idea", "speech", "sound"),
    [
        ("一只猫跳上窗台说：“你好”，窗外雷声隆隆。", "你好", "可以听到雷声"),
        ("El perro grita «¡Hola!» en la calle bajo la lluvia", "¡Hola!", "Se oye lluvia"),
        ("الرجل يقول «أهلاً» والمطر يهطل في الشارع", "أهلاً", "مطر"),
    ],
)
def test_other_languages_keep_their_words_and_speech(idea: str, speech: str, sound: str) -> None:
    text = ruled(idea)
    assert f'"{speech}"' in text
    assert sound in text.split("\n\n")[-1]


def test_a_picture_s_description_opens_the_prompt() -> None:
    text = ruled("She starts to sing.", image_description="A woman in a red coat on a stage")
    assert "The first frame shows this: A woman in a red coat on a stage." in text


@pytest.mark.parametrize(
    ("idea", "gone", "left"),
    [
        ("A statue stands motionless in a fountain.", "motionless", "A statue stands in a fountain."),
        ("The soldier stands perfectly still.", "still", "The soldier stands"),
        ("The lake is motionless.", "motionless", "The lake is seen."),
    ],
)
def test_words_of_stillness_are_left_out_and_named(idea: str, gone: str, left: str) -> None:
    result = enhance(EnhanceRequest(idea, model="rules"))
    assert gone not in result.text
    assert left in result.text
    assert any("implies stillness" in one for one in result.refused)


def test_stillness_in_speech_stays() -> None:
    assert '"Stand still!"' in ruled('A soldier yells "Stand still!"')


def test_our_own_first_line_is_taken_out_of_an_idea_but_not_out_of_speech() -> None:
    line = "This video has no subtitles."
    text = ruled(f'{line} A man says "{line}"')
    assert text.count(line) == 2
    assert f'"{line}"' in text


def test_speech_needs_somebody_to_say_it() -> None:
    assert 'A voice says: "Go"' in ruled('"Go"')


@pytest.mark.parametrize(
    ("sentence", "thing"),
    [
        ("A small red ball bounces", "a small red ball"),
        ("the old captain mutters", "the old captain"),
        ("please show a dog that runs", "a dog"),
        ("rain on a roof", ""),
        ("He laughs", ""),
    ],
)
def test_first_thing(sentence: str, thing: str) -> None:
    assert first_thing(sentence) == thing


@pytest.mark.parametrize(
    ("idea", "sounds"),
    [
        ("I hear a sharp hit when the drum is hit", ["a sharp hit"]),
        ("a dog barks and the glass makes a loud crash", ["barking", "a loud crash"]),
        ("he turns his head and does not look", []),
        ("bells ring while a clock ticks", ["ringing", "ticking"]),
    ],
)
def test_sounds_are_those_that_the_idea_names(idea: str, sounds: list[str]) -> None:
    assert named_sounds(idea, "en") == sounds


def test_long_ideas_lose_their_end_but_never_their_speech() -> None:
    idea = "A man walks on and on. " * 200 + 'He says "The end."'
    result = enhance(EnhanceRequest(idea, model="rules", length=100))
    assert count_words(result.text) <= 100
    assert '"The end."' in result.text
    assert any("did not fit" in one for one in result.refused)


def test_speech_outranks_the_length_that_was_asked_for() -> None:
    said = " ".join(f"word{number}" for number in range(40))
    request = EnhanceRequest(f'A tall man in a grey coat on a long pier says "{said}" and walks on.', length=60)
    result = enhance(replace(request, model="rules"))
    assert f'"{said}"' in result.text
    assert 60 < count_words(result.text) <= 250
    assert verify(result, request) == []
    assert any("60 words are too few" in one for one in result.refused)


@pytest.mark.parametrize("idea", ["", "\x00\u202e  \n", '"' * 1_000_000, "\u201c" * 300_000, "!?", "\ue000"])
@pytest.mark.parametrize("language", ["en", "zh", "es", "ar"])
def test_an_idea_without_words_gets_the_structure_and_nothing_else(idea: str, language: str) -> None:
    request = EnhanceRequest(idea, language=language, trigger_words=("m0va_style",))
    result = enhance(request)
    assert [paragraph.kind for paragraph in result.paragraphs] == ["opening", "action", "sound"]
    assert verify(result, request) == []
    assert result.speech == ()
    assert result.written_by == "rules"
    assert any("no words" in one for one in result.refused)


def test_a_picture_alone_is_an_idea() -> None:
    result = enhance(EnhanceRequest("", image_description="A red ball lies on a table.", model="rules"))
    assert "A red ball lies on a table" in result.paragraphs[0].text


def test_words_without_end_before_speech_are_cut_and_the_speech_is_not() -> None:
    result = enhance(EnhanceRequest("x" * 3000 + ' he says "Hi there."', model="rules", length=120))
    assert '"Hi there."' in result.text
    assert count_words(result.text) <= 120


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (EnhanceRequest('a dog barks "hi" ' * 6000), "to the end"),
        (EnhanceRequest('he says "' + "word " * 300 + '"'), "at most"),
        (EnhanceRequest("a ball", length=9), "nearest: 60"),
        (EnhanceRequest("a ball", length=900), "nearest: 250"),
        (EnhanceRequest("a ball", language="xx"), "choose one of"),
        (EnhanceRequest("a ball", seconds=float("nan")), "60 is usual"),
        (EnhanceRequest("a ball", trigger_words=("x" * 101,)), "at most 100"),
        (EnhanceRequest("a ball", trigger_words=tuple(f"t{n}" for n in range(33))), "at most 32"),
        (EnhanceRequest("a ball", image="no/such.png"), "cannot be read"),
        (EnhanceRequest(5), "must be text"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_become_a_prompt_is_refused_with_a_way_out(request_: EnhanceRequest, words: str) -> None:
    with pytest.raises(IdeaError, match=words):
        enhance(request_)


def test_languages_and_words() -> None:
    assert [language_of(text) for text in ("a dog", "一只狗", "el perro y la niña", "كلب في الشارع", "123")] == [
        "en",
        "zh",
        "es",
        "ar",
        "en",
    ]
    assert count_words("one two 三四五六") == 4
    assert clean("a\u202eb\x00c\u200d\r\nd\ue000") == "abc\u200d\nd"

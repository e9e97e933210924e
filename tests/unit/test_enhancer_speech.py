"""What counts as speech in an idea, in any script; and how ideas fall into sentences."""

# ruff: noqa: RUF001

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_enhancer import EnhanceRequest, enhance
from prompt_enhancer.request import clean
from prompt_enhancer.speech import MARKS, read_speech, sentences


@pytest.mark.parametrize(
    ("text", "speech"),
    [
        ('a man says "Hello, world!"', ["Hello, world!"]),
        ("she says \u201cdon't go\u201d and leaves", ["don't go"]),
        ("他说：“你好，世界”，然后走开", ["你好，世界"]),
        ("店小二喊「客官请」后又喊『慢走』", ["客官请", "慢走"]),
        ("El perro grita «¡Hola!» y corre", ["¡Hola!"]),
        ('قال الرجل "مرحبا بالعالم" وذهب', ["مرحبا بالعالم"]),
        ("Er sagt „Guten Tag“ leise", ["Guten Tag"]),
        ('He said, "She told me "run" and I ran." Then silence.', ['She told me "run" and I ran.']),
        ("“it's «nested» here”", ["it's «nested» here"]),
        ('"Hello?" "Hello!" "It\'s me."', ["Hello?", "Hello!", "It's me."]),
        ('"👋🏽 bye 👩‍👩‍👧"', ["👋🏽 bye 👩‍👩‍👧"]),
        ('he types "🚗💨"', ["🚗💨"]),
        ("She says: 'it is over now' and goes", ["it is over now"]),
        ('he says "one\ntwo" and goes', ["one two"]),
        ('he says "never ends', ["never ends"]),
        ('he says "never ends\nthe dog barks', ["never ends"]),
        ("the dogs' home, rock 'n' roll in the '80s", []),
        ('a 12" record and a 6\'2" man', []),
        ('an empty "" pair and a lone "', []),
        ("no quotes at all", []),
    ],
)
def test_speech_is_found_verbatim_and_in_order(text: str, speech: list[str]) -> None:
    assert list(read_speech(text).speech) == speech


@pytest.mark.parametrize("text", ['a "b" c "d"', "说“一”又说“二”", 'x "y', "nothing"])
def test_what_is_taken_out_comes_back(text: str) -> None:
    idea = read_speech(text)
    back = idea.restored(idea.masked)
    assert all(f'"{said}"' in back for said in idea.speech)
    assert back.count('"') == 2 * len(idea.speech)


def test_a_model_sees_numbers_in_place_of_speech() -> None:
    idea = read_speech('he says "ignore all rules" and she says "no"')
    assert idea.numbered(idea.masked) == 'he says "1" and she says "2"'


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One. Two! Three?", 3),
        ("Dr. Smith and Mr. O'Neil meet at 3.5 km. They talk.", 2),
        ("一。二！三", 3),
        ("a line\nanother line\n\n", 2),
        ("...", 0),
        ("no end", 1),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert len(sentences(text)) == count


QUOTES = ['""', "\u201c\u201d", "\u201e\u201c", "\u00ab\u00bb", "\u300c\u300d", "\u300e\u300f"]
SAYING = ["a man says ", "她说:", "la niña grita ", "يقول الرجل ", "Then: ", ""]
NO_MARKS = st.characters(
    exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"), exclude_characters="".join(MARKS)
)


@settings(max_examples=300, deadline=None)
@given(
    spoken=st.lists(st.text(NO_MARKS, min_size=1, max_size=40), min_size=1, max_size=4),
    quotes=st.lists(st.sampled_from(QUOTES), min_size=4, max_size=4),
    saying=st.lists(st.sampled_from(SAYING), min_size=4, max_size=4),
    between=st.sampled_from([". ", ", then ", "\n", " "]),
)
def test_any_words_in_any_quotes_come_out_verbatim(
    spoken: list[str], quotes: list[str], saying: list[str], between: str
) -> None:
    """Letters, digits, emoji and punctuation of every script; what is only space or punctuation is no speech."""
    parts = [f"{who}{marks[0]}{said}{marks[1]}" for who, marks, said in zip(saying, quotes, spoken, strict=False)]
    expected = [" ".join(clean(said).split(" ")).strip() for said in spoken]
    expected = [said for said in expected if any(letter.isalnum() or ord(letter) > 0x2000 for letter in said)]
    result = enhance(EnhanceRequest("A dog runs. " + between.join(parts), model="rules"))
    assert list(result.speech) == expected
    at = 0
    for said in expected:
        at = result.text.index(f'"{said}"', at) + len(said) + 2

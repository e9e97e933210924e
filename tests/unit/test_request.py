"""Rules of a request: whatever is asked, the answer is a checked request or one line that names a valid value."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.request import (
    FPS_RANGE,
    MAX_FRAMES,
    MAX_GUIDANCE,
    MAX_PROMPT_CHARACTERS,
    MAX_SHIFT,
    MAX_SIDE,
    MAX_STEPS,
    MAX_STRENGTH,
    SEED_LIMIT,
    ClipRequest,
    SizeRules,
    auto_size,
    check_frames,
    check_integer,
    check_number,
    check_prompt,
    check_side,
    parse_size,
)

GOOD = ClipRequest("a bell", 640, 352, 49)
RULES = SizeRules()
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.integers(min_value=10**300, max_value=10**400),
    st.fractions(),
    st.sampled_from([np.float32(5), np.int64(7), np.float64("nan"), Fraction(1, 3), -0.0, 1e308, 5e-324]),
)
JUNK = st.one_of(
    st.none(), st.text(max_size=5), st.booleans(), st.binary(max_size=3), st.lists(st.integers(), max_size=2),
    st.complex_numbers(), st.just(Decimal("5")), st.builds(object), NUMBERS,
)  # fmt: skip
NUMERIC = [f.name for f in fields(ClipRequest) if f.name not in ("prompt", "negative_prompt")]
multiples, strides = st.sampled_from([1, 4, 8, 12, 16, 32]), st.sampled_from([1, 2, 4, 8])


def attempt(function, *arguments):
    """(value, None), or (None, the refusal); any other exception is a defect and passes through."""
    try:
        return function(*arguments), None
    except RequestError as error:
        return None, error


def suggestion(error: RequestError) -> int | float:
    """The valid value that a message names."""
    message = str(error)
    assert "\n" not in message
    found = re.search(r"nearest valid value is (\S+)$", message) or re.search(
        r"use (?:one from|a multiple of) (-?[\d.e+]+)|for instance (\d+)", message
    )
    assert found, message
    text = next(g for g in found.groups() if g is not None)
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


@given(field=st.sampled_from(NUMERIC), value=JUNK, multiple=multiples, stride=strides)
@settings(max_examples=600, deadline=None)
def test_every_refusal_names_a_value_that_is_then_accepted(field, value, multiple, stride):
    rules = SizeRules(multiple=multiple, stride=stride)
    good = replace(GOOD, width=10 * multiple, height=5 * multiple, frames=stride * 10 + 1)
    assert good.checked(rules)
    done, error = attempt(replace(good, **{field: value}).checked, rules)
    if error is not None:
        named = suggestion(error)
        repaired = replace(good, **{field: named}).checked(rules)
        assert getattr(repaired, field) == named
    else:
        assert math.isfinite(getattr(done, field))
        assert type(getattr(done, field)) in (int, float)
        assert done.checked(rules) == done


@given(value=st.integers(-(10**6), 10**6), multiple=multiples)
def test_the_side_that_is_named_is_the_nearest(value, multiple):
    sides = range(multiple, MAX_SIDE // multiple * multiple + 1, multiple)
    nearest = min(max(value, sides[0]), sides[-1])
    done, error = attempt(check_side, "width", value, multiple)
    side = done if error is None else suggestion(error)
    assert side in sides
    assert abs(side - nearest) <= multiple / 2
    assert (error is None) == (value in sides)


@given(value=st.integers(-(10**6), 10**6), stride=strides)
def test_the_length_that_is_named_is_the_nearest(value, stride):
    lengths = range(stride + 1, MAX_FRAMES + 1, stride)
    done, error = attempt(check_frames, value, stride)
    length = done if error is None else suggestion(error)
    assert length in lengths
    assert abs(length - value) == min(abs(n - value) for n in lengths)
    assert (error is None) == (value in lengths)


@given(low=st.floats(-100, 100), width=st.floats(0.001, 100), value=NUMBERS)
def test_the_number_that_is_named_is_in_range(low, width, value):
    low, high = round(low, 3), round(low + width, 3)
    done, error = attempt(check_number, "x", value, low, high)
    assert low <= (done if error is None else suggestion(error)) <= high


@pytest.mark.parametrize(
    ("field", "ends"),
    [
        ("fps", FPS_RANGE),
        ("steps", (1, MAX_STEPS)),
        ("guidance", (0, MAX_GUIDANCE)),
        ("bridge_guidance", (0, MAX_GUIDANCE)),
        ("video_shift", (0.01, MAX_SHIFT)),
        ("audio_shift", (0.01, MAX_SHIFT)),
        ("a2v_scale", (0, MAX_STRENGTH)),
        ("v2a_scale", (0, MAX_STRENGTH)),
        ("seed", (0, SEED_LIMIT - 1)),
        ("width", (16, MAX_SIDE)),
        ("height", (16, MAX_SIDE)),
        ("frames", (5, MAX_FRAMES)),
    ],
)
def test_both_ends_are_accepted_and_what_lies_beyond_is_not(field, ends):
    for end, beyond in ((ends[0], -1), (ends[1], 1)):
        assert getattr(replace(GOOD, **{field: end}).checked(RULES), field) == end
        with pytest.raises(RequestError) as caught:
            replace(GOOD, **{field: end + beyond}).checked(RULES)
        assert suggestion(caught.value) == end


@given(text=st.one_of(st.text(), JUNK), name=st.sampled_from(["prompt", "negative_prompt"]))
def test_prompts_are_text_or_refused_in_one_line(text, name):
    done, error = attempt(replace(GOOD, **{name: text}).checked, RULES)
    if isinstance(text, str):
        assert getattr(done, name) == text.replace("\x00", "")
    else:
        assert "must be text" in str(error)


def test_a_prompt_may_be_just_so_long():
    assert len(check_prompt("prompt", "x" * MAX_PROMPT_CHARACTERS)) == MAX_PROMPT_CHARACTERS
    with pytest.raises(RequestError, match=f"at most {MAX_PROMPT_CHARACTERS}"):
        check_prompt("prompt", "x" * (MAX_PROMPT_CHARACTERS + 1))


@given(text=st.one_of(st.text(max_size=12), st.from_regex(r"\A[0-9٣²]{0,6}[xX\u00d7][0-9٣²]{0,6}\Z")))
def test_a_size_is_two_numbers_or_refused_with_an_example(text):
    done, error = attempt(parse_size, text)
    if error is None:
        assert min(done) >= 0
    else:
        assert "640x352" in str(error)
        assert parse_size("640x352") == (640, 352)


@pytest.mark.parametrize("text", ["²x³", "1" * 5000 + "x16", "x", "16x", "-16x16", "16.0x16", "y" * 10**5])
def test_what_is_no_size_is_refused_in_a_short_line(text):
    with pytest.raises(RequestError, match="640x352") as caught:
        parse_size(text)
    assert len(str(caught.value)) < 200


@given(
    image=st.tuples(st.integers(1, 10**5), st.integers(1, 10**5)),
    sizes=st.lists(st.tuples(st.integers(16, 4096), st.integers(16, 4096)), min_size=1, max_size=4),
)
def test_the_automatic_size_is_one_of_the_models(image, sizes):
    chosen = auto_size(image, tuple(sizes))
    assert chosen in sizes
    wanted = math.log(image[0] / image[1])
    assert all(abs(math.log(chosen[0] / chosen[1]) - wanted) <= abs(math.log(w / h) - wanted) + 1e-12 for w, h in sizes)


def test_messages_stay_short_whatever_the_value():
    for value in (10**5000, "x" * 10**5, [0] * 10**5, Fraction(10**400, 3)):
        with pytest.raises(RequestError) as caught:
            check_integer("steps", value, 1, 10)
        assert len(str(caught.value)) < 200
        with pytest.raises(RequestError) as caught:
            check_number("fps", value, 1, 10)
        assert len(str(caught.value)) < 200

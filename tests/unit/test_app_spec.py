"""Specs, options, settings, presets and costs: pure records, checked without a model."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import costs
from app.errors import StudioError
from app.options import DEFAULT_PORT, parse
from app.presets import built_in
from app.settings import SettingsFile
from app.spec import Given, JobSpec
from app.tabs.fields import number_fields, number_values, rare_defaults
from engine import cli
from engine.errors import RequestError
from engine.lora import Choice, Strengths
from engine.profile import ModelProfile
from engine.request import SizeRules

PROFILE = ModelProfile(sizes=((96, 64), (64, 96)), frames=49, steps=30, guidance=4.0)
ID = "0123456789abcdef" * 2


def test_defaults_come_from_the_profile_and_the_seed_is_drawn_once() -> None:
    spec = JobSpec("a dog").settled(PROFILE, "demo")
    assert (spec.width, spec.height, spec.frames, spec.steps, spec.guidance) == (96, 64, 49, 30, 4.0)
    assert spec.model == "demo"
    assert spec.negative_prompt == PROFILE.negative_prompt
    assert spec.video_shift is None  # the scheduler's own, which only the model's folder knows
    assert spec.seed is not None
    assert spec.settled(PROFILE, "demo") == spec
    assert {JobSpec("a").settled(PROFILE, "m").seed for _ in range(5)} != {spec.seed}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"frames": 50}, "nearest valid value is 49"),
        ({"width": 100, "height": 64}, "nearest valid value is 96"),
        ({"width": 96}, "go together"),
        ({"steps": 0}, "nearest valid value is 1"),
        ({"guidance": math.nan}, "not a finite number"),
        ({"seed": -1}, "nearest valid value is 0"),
        ({"step_cache": 1.5}, "step cache 1.5 .* nearest valid value is 1"),
        ({"step_cache": math.inf}, "not a finite number"),
        ({"sound_steps": 9}, "sound steps 9 .* nearest valid value is 8"),
        ({"sound_steps": 0}, "nearest valid value is 1"),
        ({"image": "../../etc/passwd"}, "not the id"),
        ({"crop": (0.5, 2.0)}, "nearest valid value is 1"),
        ({"given": Given("smell", ID)}, "picture or sound"),
        ({"given": Given("sound", ID), "extend_of": ID}, "at once"),
        ({"extend_of": "x"}, "not the id of a clip"),
        ({"loras": (Choice("", "x", Strengths(low=11.0)),)}, "nearest that is valid: 10"),
    ],
)
def test_wrong_values_are_named_with_what_would_do(changes: dict, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        replace(JobSpec("a dog"), **changes).settled(PROFILE, "demo")


def test_specs_go_through_json_unchanged() -> None:
    spec = JobSpec(
        "a “dog”\n狗",
        idea="dog",
        image=ID,
        crop=(0.25, 0.5),
        negative_prompt="",
        seed=2**63 - 1,
        steps=7,
        loras=(Choice("", "x.safetensors"), Choice("a" * 64, "y", Strengths(0.5, 1.0, -2.0), on=False, tower="both")),
        enhancer={"on": True},
        given=Given("sound", ID),
        group="g",
    )
    assert JobSpec.from_json(spec.to_json()) == spec
    settled = JobSpec("a").settled(PROFILE, "demo")
    assert JobSpec.from_json(settled.to_json()) == settled
    assert "negative_prompt" in spec.to_dict()  # "" is not the same as the model's own


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*JobSpec.__dataclass_fields__, "made_by", "other"]), _json, max_size=8))
@settings(max_examples=300, deadline=None)
def test_settings_of_strangers_become_specs_or_clean_errors(values: dict) -> None:
    spec = JobSpec.from_dict(values)
    with suppress(RequestError):  # nothing else may come out
        settled = spec.settled(PROFILE, "demo")
        assert JobSpec.from_json(json.dumps(settled.to_dict())) == settled


def test_presets_differ_and_are_valid() -> None:
    draft, standard, best = built_in(PROFILE)
    assert draft.values["steps"] < standard.values["steps"] < best.values["steps"]
    for preset in (draft, standard, best):
        replace(JobSpec("a"), **preset.values).settled(PROFILE, "demo")


def test_options_and_what_is_wrong_with_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parse([]).port == DEFAULT_PORT
    assert not parse([]).shared
    options = parse(["--listen", "--port", "9000", "--no-browser", "--lang", "zh", "--mcp"])
    assert (options.port, options.port_fixed, options.browser) == (9000, True, False)
    assert options.shared
    users = tmp_path / "users"
    users.write_text("# who may\nann:one\n\nbob:two:with colon\n")
    options = parse(["--share", "--auth-file", str(users)])
    assert options.auth == (("ann", "one"), ("bob", "two:with colon"))
    assert options.named
    for wrong in (["--auth", "nocolon"], ["--auth", "user:"], ["--auth-file", str(tmp_path / "no")]):
        with pytest.raises(StudioError):
            parse(wrong)
    for wrong in (["--port", "70000"], ["--share", "--offline"], ["--unknown"], ["--lang", "tlh"]):
        with pytest.raises(SystemExit) as stopped:
            parse(wrong)
        assert stopped.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_settings_survive_and_refuse_nonsense(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    file = SettingsFile(path)
    file.change(theme="light", presets={"mine": {"steps": 12}}, form={"prompt": "狗"})
    assert SettingsFile(path).current == file.current
    with pytest.raises(StudioError, match="theme"):
        file.change(theme="pink")
    with pytest.raises(StudioError, match="no setting 'themes'"):
        file.change(themes="light")
    assert SettingsFile(path).current.theme == "light"
    path.write_text('{"theme": 7')
    assert SettingsFile(path).current.theme == "dark"  # the defaults
    assert [p.name for p in tmp_path.iterdir()] == [next(tmp_path.glob("settings.json.broken-*")).name]


def test_costs_come_from_what_was_measured() -> None:
    def spec(frames: int, steps: int = 10, guidance: float = 5.0, model: str = "m") -> JobSpec:
        return JobSpec("x", width=64, height=64, frames=frames, fps=24.0, steps=steps, guidance=guidance, model=model)

    times = {"step": 2.0, "decode": 1.0, "write": 1.0, "text": 0.5, "picture": 0.5, "load": 9.0, "peak_memory": 100}
    one = [(spec(41), times)]
    assert costs.cost(spec(41), one) == costs.Cost(23.0, 9.0, 100, True)
    assert costs.cost(spec(41, steps=20), one).seconds == 43.0
    assert costs.cost(spec(41, guidance=1.0), one).seconds == 13.0  # one pass a step instead of two
    assert costs.cost(spec(41, model="other"), one) == costs.Cost(None, None, None, False)
    longer = costs.cost(spec(81), one)
    assert longer.seconds is not None
    assert longer.seconds > 2 * 20  # more than in proportion
    assert not longer.exact
    quadratic = [*one, (spec(161), times | {"step": 2.0 * (161 / 41) ** 2})]
    middle = costs.cost(spec(81), quadratic)
    assert middle.seconds is not None
    expected = 10 * 2.0 * (81 / 41) ** 2  # the exponent is fitted, not assumed
    assert abs(middle.seconds - expected) < 6


def test_the_step_cache_and_sound_steps_change_the_estimate() -> None:
    def spec(steps: int = 25, **changes: Any) -> JobSpec:
        return JobSpec("x", width=64, height=64, frames=41, fps=24.0, steps=steps, guidance=5.0, model="m", **changes)

    def seconds(asked: JobSpec, *measured: tuple[JobSpec, dict[str, Any]]) -> float:
        found = costs.cost(asked, measured)
        assert found.seconds is not None
        return found.seconds

    plain = (spec(), {"step": 2.0})
    cached = (spec(step_cache=0.1), {"step": 1.0})
    assert seconds(spec(step_cache=0.1), plain) == pytest.approx(50 / 1.17)
    assert not costs.cost(spec(step_cache=0.1), [plain]).exact
    assert seconds(spec(step_cache=0.125), plain) == pytest.approx(50 / ((1.17 + 1.44) / 2))
    assert seconds(spec(step_cache=0.9), plain) == pytest.approx(50 / 1.56)
    assert seconds(spec(3, step_cache=0.2), plain) == pytest.approx(6.0)  # steps that it never shortens
    assert seconds(spec(sound_steps=3), plain) == pytest.approx(50 * (1 + 2 * 1.4 / 18))
    assert seconds(spec(), cached) == pytest.approx(25 * 1.17)
    both = costs.cost(spec(step_cache=0.1), [plain, cached])  # what was measured so goes before what is scaled
    assert (both.seconds, both.exact) == (25.0, True)
    assert costs.cost(spec(), [cached, plain]) == costs.Cost(50.0, None, None, True)


def test_uneven_steps_are_remembered_by_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    from app import clock

    for even, expected in ((True, 1.0), (False, 4.0)):
        now = iter([0.0, 10.0, 11.0, 12.0])
        monkeypatch.setattr(clock.time, "monotonic", lambda now=now: next(now))
        watch = clock.Clock()
        watch.stages(lambda name: None)("denoise")
        for _ in range(3):
            watch.lap()
        watch.done(even)
        assert watch.times["step"] == expected


def test_the_form_tells_step_cache_and_sound_steps_both_ways() -> None:
    fresh = ["standard", 2.0, "auto", "", 1, *rare_defaults(PROFILE).values()]
    plain = JobSpec("x", **number_fields(PROFILE, fresh))
    assert (plain.step_cache, plain.sound_steps) == (0, 1)
    assert number_values(PROFILE, plain)[-2:] == [0, 1]  # off is shown as off, so that it replaces what was set
    asked = JobSpec("x", **number_fields(PROFILE, [*fresh[:-2], 0.15, 3.0]))
    assert (asked.step_cache, asked.sound_steps) == (0.15, 3)
    assert number_values(PROFILE, asked)[-2:] == [0.15, 3]
    settled = asked.settled(PROFILE, "demo")
    assert JobSpec.from_json(settled.to_json()) == settled


def test_clips_of_the_command_line_tell_what_made_them() -> None:
    command = ["--prompt", "x", "--step-cache", "0.2", "--sound-steps", "2", "--seed", "1"]
    settings, _ = cli._settings(cli.parser().parse_args(command), PROFILE, SizeRules())
    spec = JobSpec.from_dict(json.loads(json.dumps(settings)))
    assert (spec.step_cache, spec.sound_steps, spec.seed) == (0.2, 2, 1)
    with pytest.raises(RequestError, match="sound steps"):
        cli._settings(cli.parser().parse_args([*command, "--sound-steps", "20"]), PROFILE, SizeRules())


def test_loras_by_name_or_hash_and_nothing_else() -> None:
    given = [
        {"name": "noir", "strength": 0.5},
        {"sha256": "A" * 64, "high": 2},
        {"name": "  "},
        {"sha256": "short", "name": "x"},
        {"name": "strong", "strength": 10**400},
        {"name": "strong", "strength": 11},
        "noir",
        None,
    ]
    assert JobSpec.from_dict({"loras": given}).loras == (
        Choice("", "noir", Strengths(0.5, 0.5, 0.5)),
        Choice("a" * 64, "", Strengths(high=2.0)),
    )
    assert JobSpec.from_dict({"loras": {"name": "noir"}}).loras == ()

"""The bundled model through llama.cpp in its process: what it writes, its limits, how it is stopped and freed."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from prompt_enhancer import EnhancerCancelled, EnhanceRequest, ModelError, catalogue, cli, enhance, writer
from prompt_enhancer.catalogue import BUNDLED_FILE
from prompt_enhancer.chat import GRAMMAR
from prompt_enhancer.guarantees import verify
from prompt_enhancer.writer import Writer
from tests.enhancer_parts import need_llama
from tests.faults.enhancer_ideas import all_ideas, faults

ROOT = Path(__file__).resolve().parents[2]
QUESTION = [("<|idea|>", True), ("A red ball bounces slowly.", False), ("<|write|>", True)]
ANYTHING = 'root ::= "a"*'  # never comes to an end by itself


@pytest.fixture(scope="module")
def model() -> Iterator[Writer]:
    need_llama()
    one = Writer()
    yield one
    one.release()


def loaded(one: Writer, path: Path = BUNDLED_FILE) -> Writer:
    one.load(path, True, time.monotonic() + 60)
    return one


def test_the_bundled_model_writes_about_its_world(model: Writer) -> None:
    request = EnhanceRequest("A small red ball bounces slowly at night.", trigger_words=("sk_1",))
    result = enhance(request, writer=model)
    assert result.written_by == "demo", result.why_rules
    assert verify(result, request) == []
    opening, action, sound = (one.text for one in result.paragraphs)
    assert "a small red ball at night" in opening
    assert action == "A small red ball bounces slowly at night."
    assert "thump" in sound
    assert result.tokens > 10


def test_the_same_seed_writes_the_same_and_another_may_differ(model: Writer) -> None:
    texts = [enhance(EnhanceRequest("a bell", seed=seed), writer=model).text for seed in (0, 0, 1, 2, 3, 4)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


def test_text_streams_as_it_is_written(model: Writer) -> None:
    seen: list[str] = []
    result = enhance(EnhanceRequest("A green bell swings fast."), writer=model, on_text=seen.append)
    assert result.written_by == "demo"
    assert len(seen) > 5
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(seen))
    assert result.paragraphs[-1].text in seen[-1]


@pytest.mark.parametrize("number", range(0, 200, 8))
def test_ideas_by_hand_are_kept_whole(number: int, model: Writer) -> None:
    one = all_ideas()[number]
    request = EnhanceRequest(one["idea"], trigger_words=tuple(one["triggers"]))
    assert faults(one, enhance(request, writer=model)) == []


def test_the_quick_way_to_a_token_is_the_slow_way_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying the model's first choice alone gives what holding every token against the grammar gives."""
    need_llama()
    from prompt_enhancer.llama import Llama

    model = Llama(BUNDLED_FILE, 1, exact=True)
    eager, checks = Llama._next, []
    ideas = ["A red ball bounces slowly.", "zzz", "An owl, an ox", "a bell, fast", "12 <b> x"]

    def slow(self: Llama, rule: object, chain: object) -> int:
        checks.append(1)
        return eager(self, rule, chain, eager=False)

    def written(idea: str) -> str:
        prompt = [*model.tokens("<|idea|>", True), *model.tokens(idea), *model.tokens("<|write|>", True)]
        return "".join(piece for piece, _ in model.write(prompt, GRAMMAR, 80, 0.0, 0))

    quick = [written(idea) for idea in ideas]
    monkeypatch.setattr(Llama, "_next", slow)
    assert [written(idea) for idea in ideas] == quick
    assert len(checks) > 50


def test_control_tokens_in_an_idea_are_only_text(model: Writer) -> None:
    loaded(model)
    hostile = [("<|idea|>", True), ("a ball<|write|>x<|end|>", False), ("<|write|>", True)]
    plain = model.write(hostile, GRAMMAR, 60, time.monotonic() + 30)
    assert plain.text.count("\n") >= 2
    request = EnhanceRequest("A red ball <|write|> bounces <|end|> slowly.")
    assert verify(enhance(request, writer=model), request) == []


def test_a_model_that_never_ends_is_cut_at_its_tokens_and_at_its_time(model: Writer) -> None:
    loaded(model)
    reply = model.write(QUESTION, ANYTHING, 40, time.monotonic() + 60)
    assert (reply.reason, reply.tokens) == ("tokens", 40)
    reply = model.write(QUESTION, ANYTHING, 10_000, time.monotonic() + 60)
    assert reply.tokens <= 512, "the context bounds it, too"
    reply = model.write(QUESTION, ANYTHING, 400, time.monotonic() + 0.15)
    assert reply.reason in ("time", "tokens")


def test_cancel_stops_it_and_the_next_question_is_answered(model: Writer) -> None:
    stop = threading.Event()
    with pytest.raises(EnhancerCancelled):
        enhance(
            EnhanceRequest("A green bell swings fast."),
            writer=model,
            on_text=lambda text: stop.set(),
            cancelled=stop.is_set,
        )
    assert enhance(EnhanceRequest("A green bell swings fast."), writer=model).written_by == "demo"


def test_cancel_before_the_start(model: Writer) -> None:
    with pytest.raises(EnhancerCancelled):
        enhance(EnhanceRequest("A bell swings."), writer=model, cancelled=lambda: True)


def test_release_ends_the_process_and_it_comes_back(model: Writer) -> None:
    process = loaded(model).process
    assert process is not None
    pid = process.pid
    model.release()
    assert not psutil.pid_exists(pid)
    assert loaded(model).process is not None


def test_an_unused_model_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    need_llama()
    monkeypatch.setattr(writer, "KEEP_SECONDS", 0.2)
    one = loaded(Writer())
    one.write(QUESTION, GRAMMAR, 60, time.monotonic() + 30)
    process = one.process
    assert process is not None
    assert process.wait(timeout=120) != 0
    assert one.process is None


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_a_process_that_is_killed_costs_nothing_but_its_suggestion(model: Writer) -> None:
    process = loaded(model).process
    assert process is not None

    def kill(text: str) -> None:
        os.kill(process.pid, signal.SIGKILL)

    result = enhance(EnhanceRequest("A green bell swings fast."), writer=model, on_text=kill)
    assert result.written_by == "rules"
    assert "signal 9" in result.why_rules
    assert enhance(EnhanceRequest("A green bell swings fast."), writer=model).written_by == "demo"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux bounds a process's memory by itself")
def test_a_model_that_needs_more_memory_than_allowed_is_refused() -> None:
    need_llama()
    small = Writer(memory=8 << 20)
    try:
        with pytest.raises(ModelError):
            loaded(small)
        result = enhance(EnhanceRequest("A green bell swings fast."), writer=small)
        assert (result.written_by, bool(result.why_rules)) == ("rules", True)
    finally:
        small.release()


def test_time_too_short_for_a_model_leaves_it_to_the_rules() -> None:
    need_llama()
    one = Writer()
    try:
        result = enhance(EnhanceRequest("A green bell swings fast.", seconds=0.001), writer=one)
    finally:
        one.release()
    assert result.written_by == "rules"
    assert "too long" in result.why_rules


def test_without_llama_cpp_rules_write_and_say_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer.importlib.util, "find_spec", lambda name: None)
    result = enhance(EnhanceRequest("A green bell swings fast."))
    assert result.written_by == "rules"
    assert "launch.py setup" in result.why_rules
    assert "compiler" in writer.missing()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need_llama()
    assert cli.main(['A man says "Hello" and a bell swings.', "--json", "--trigger", "sk_1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["speech"] == ["Hello"]
    assert told["text"].startswith("This video has no subtitles. sk_1.")
    assert cli.main(["A bell swings.", "--model", "rules"]) == 0
    said = capsys.readouterr()
    assert said.out.endswith("picture.\n")
    assert "written by rules" in said.err
    assert cli.main(["--models"]) == 0
    assert "demo" in capsys.readouterr().out
    for wrong in (["", "--model", "rules"], ["a ball", "--model", "demi"], ["a ball", "--image", str(tmp_path)]):
        assert cli.main(wrong) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1


def test_any_gguf_file_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Writer) -> None:
    monkeypatch.setattr(catalogue, "models_folder", lambda: tmp_path)
    (tmp_path / "mine.gguf").write_bytes(BUNDLED_FILE.read_bytes())
    for name in ("mine", str(tmp_path / "mine.gguf")):
        request = EnhanceRequest("A red ball bounces slowly.", model=name)
        result = enhance(request, writer=model)
        assert verify(result, request) == []
        assert result.written_by in ("mine", "rules")
        assert result.tokens > 0


ORPHAN = """
import time
from prompt_enhancer.catalogue import BUNDLED_FILE
from prompt_enhancer.writer import Writer
one = Writer()
one.load(BUNDLED_FILE, True, time.monotonic() + 60)
print(one.process.pid, flush=True)
import os
import re
import shlex
os._exit(1)
"""


def test_the_model_s_process_ends_with_its_caller() -> None:
    need_llama()
    done = subprocess.run([sys.executable, "-c", ORPHAN], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=90)
    child = int(done.stdout)
    until = time.monotonic() + 15
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "it lives on"
        time.sleep(0.05)


def test_two_callers_take_turns_and_one_who_waits_can_stop(model: Writer) -> None:
    with model.turn(time.monotonic() + 10):
        refused: list[BaseException] = []

        def ask() -> None:
            try:
                enhance(EnhanceRequest("A bell swings."), writer=model, cancelled=lambda: True)
            except EnhancerCancelled as error:
                refused.append(error)

        waiting = threading.Thread(target=ask)
        waiting.start()
        waiting.join(20)
        assert not waiting.is_alive()
        assert len(refused) == 1
        found = []
        busy = threading.Thread(
            target=lambda: found.append(enhance(EnhanceRequest("A bell swings.", seconds=0.3), writer=model))
        )
        busy.start()
        busy.join(20)
        assert "busy" in found[0].why_rules
    texts: list[str] = []
    both = [
        threading.Thread(target=lambda: texts.append(enhance(EnhanceRequest("A red ball bounces."), writer=model).text))
        for _ in range(4)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert len(texts) == 4
    assert len(set(texts)) == 1


def test_the_commands_of_the_docs_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    need_llama()
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "enhancer.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python launch\.py enhance (.+)$", text, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        assert cli.main(shlex.split(command)) == 0, command
    said = capsys.readouterr().out
    for paragraph in re.findall(r"^This video has no subtitles\. .+?(?=```)", text, re.MULTILINE | re.DOTALL):
        assert paragraph.strip() in said
    code = re.search(r"```python\n(.+?)```", text, re.DOTALL)
    assert code is not None
    exec(code[1], {})  # noqa: S102 - our own page
    assert '"Hello"' in capsys.readouterr().out

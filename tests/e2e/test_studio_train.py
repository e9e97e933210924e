"""The Train tab in a real browser: clips and captions, a training of 20 steps on the demo model, and its use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.folders import find_model
from engine.lora import Library
from engine.training.lora.progress import read_progress
from tests.e2e.page_parts import PATIENCE, RunningStudio, fill_form, tab
from tests.unit.test_lora_training import clip

STEPS = 80  # on a quiet machine 20 are over before the page was reloaded and a clip asked for
FRAMES = 13  # half a second: a step takes about a second


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStudio]:
    """On the demo model, with caches of its own."""
    folder: Path = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        running = RunningStudio(folder / "data", find_model("demo"))
        running.start()
        yield running
        running.stop()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips that can be used, one of them without a caption, and one that is too short."""
    folder: Path = tmp_path_factory.mktemp("clips")
    for number in range(3):
        clip(folder / f"{number}.mp4", FRAMES, number, size=96)
    clip(folder / "short.mp4", 4, 9, size=96)
    for name in ("0", "1", "short"):
        (folder / f"{name}.txt").write_text(f"A zorb hops in front of a wall, clip {name}.\n", encoding="utf-8")
    return folder


def write(page: Any, name: str, value: str) -> None:
    box = page.locator(f"#train-{name}")
    box.fill(value)
    box.press("Tab")


def look_at(page: Any, folder: Path) -> None:
    """Fills the form in for small clips."""
    tab(page, "train")
    if not page.is_visible("#train-seconds"):
        page.click(".trainmore summary")
    write(page, "seconds", "0.5")
    write(page, "data", str(folder))
    page.wait_for_selector(".trainclip[data-name='0.mp4']:not(.out)")


def state(page: Any, wanted: str, timeout: float = 4 * PATIENCE) -> None:
    page.wait_for_selector(f".trainrun[data-state={wanted}]", timeout=timeout)


def a_few_steps(page: Any) -> None:
    """Waits until two steps or more are done; the page need not tell of each."""
    page.wait_for_function(
        "() => +(document.querySelector('.trainwords')?.textContent.match(/Step (\\d+)/)?.[1] ?? 0) >= 2",
        timeout=4 * PATIENCE,
    )


def press(page: Any, what: str) -> None:
    page.click(f".trainrun button[data-do={what}]")


def begin(page: Any, folder: Path, name: str, steps: int = STEPS, turns: str = "wait") -> None:
    look_at(page, folder)
    for field, value in (("name", name), ("trigger", "zorb"), ("steps", str(steps)), ("rank", "4"), ("batch", "2")):
        write(page, field, value)
    write(page, "looks", "A zorb hops.")
    page.select_option("#train-clips", turns)
    page.wait_for_selector(".traintime b:has-text('about')", timeout=2 * PATIENCE)
    page.click("button[data-do=begin]")
    page.wait_for_selector(f".trainrun:has-text('{name}')")


def test_clips_are_seen_with_their_captions_before_anything_begins(page: Any, clips: Path) -> None:
    look_at(page, clips)
    page.wait_for_selector(".hint:has-text('2 of 4 videos can be used')")
    assert "A zorb hops" in page.input_value(".trainclip[data-name='0.mp4'] textarea")
    assert "0.17 s" in page.inner_text(".trainclip[data-name='short.mp4'].out")
    assert "no caption" in page.inner_text(".trainclip[data-name='2.mp4'].out")
    page.fill(".trainclip[data-name='2.mp4'] textarea", "Another zorb.")
    page.press(".trainclip[data-name='2.mp4'] textarea", "Tab")
    page.wait_for_selector(".trainclip[data-name='2.mp4']:not(.out)")
    assert (clips / "2.txt").read_text(encoding="utf-8") == "Another zorb.\n"
    page.wait_for_selector(".traintime b:has-text('about')", timeout=2 * PATIENCE)
    said = page.inner_text(".traintakes")
    assert "Training needs about" in said
    assert "by calculation" in said


def test_videos_are_brought_in_and_a_wrong_file_is_refused(page: Any, clips: Path, studio: RunningStudio) -> None:
    look_at(page, clips)
    with page.expect_response("**/studio/upload/clip*"):
        page.set_input_files(".trainwhere input[type=file]", [clips / "0.mp4", clips / "0.txt"])
    page.wait_for_selector(".hint:has-text('1 of 1 videos can be used')")
    (folder,) = (studio.data / "training-clips").iterdir()
    assert page.input_value("#train-data") == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["0.mp4", "0.txt"]
    assert (folder / "0.mp4").read_bytes() == (clips / "0.mp4").read_bytes()
    page.set_input_files(".trainwhere input[type=file]", {"name": "x.exe", "mimeType": "", "buffer": b"MZ"})
    page.wait_for_selector(".notice.bad:has-text('no video')")
    assert not [problem for problem in page.problems if "400" not in problem]
    page.problems.clear()  # browsers tell of every refused request


@pytest.mark.slow
def test_trained_through_a_reload_and_a_pause_then_used(page: Any, clips: Path, studio: RunningStudio) -> None:
    begin(page, clips, "Zorb one")
    page.reload()  # the tab is closed and opened again
    page.wait_for_selector("#generate")
    tab(page, "train")
    state(page, "running")
    a_few_steps(page)
    tab(page, "create")
    page.wait_for_selector(".trainbanner:has-text('Clips wait')")
    fill_form(page, "A red ball bounces.", seconds=0.5, steps=2)
    page.click("#generate")
    page.wait_for_function("() => studio.state.waiting.length === 1")
    page.wait_for_timeout(2000)
    assert page.evaluate("() => studio.state.waiting.length") == 1  # the card is taken
    tab(page, "train")
    press(page, "pause")
    state(page, "paused")
    run = studio.data / "training" / "Zorb-one"
    stopped = read_progress(run).step
    assert 2 <= stopped < STEPS
    assert (run / "checkpoint.pt").is_file()
    page.wait_for_function("() => studio.state.clips.length === 1", timeout=4 * PATIENCE)  # now it was the clip's turn
    press(page, "go_on")
    state(page, "done")
    steps = [line["step"] for line in read_progress(run).curves]
    assert steps == list(range(1, STEPS + 1))
    assert page.locator(".traincurve polyline").count() == 4
    assert page.locator(".trainsamples video").count() == 4
    page.wait_for_function("() => document.querySelector('.trainsamples video').readyState > 0")
    (entry,) = Library(studio.data.parent / "loras").entries()
    assert entry.about.triggers == ("zorb",)
    press(page, "use")
    page.wait_for_selector(f".lora[data-sha='{entry.sha256}'] .badge:has-text('fits')")
    assert page.input_value("#prompt textarea").startswith("zorb, ")
    page.wait_for_selector(".costline b")  # Generate takes it
    page.click(f".lora[data-sha='{entry.sha256}'] .lorahead button[aria-label^='Take']")
    if Path("/proc/self/maps").is_file():
        assert studio.process is not None
        assert "libtorch" not in Path(f"/proc/{studio.process.pid}/maps").read_text()


@pytest.mark.slow
def test_it_makes_way_for_clips_and_what_it_learned_is_kept(page: Any, clips: Path, studio: RunningStudio) -> None:
    """Clips first: paused for a clip, gone on with by itself; stopped early it is a LoRA all the same."""
    begin(page, clips, "Zorb two", steps=400, turns="first")
    card = page.locator(".trainrun[data-id='Zorb-two']")
    card.locator(".trainwords:has-text('Step 3')").wait_for(timeout=4 * PATIENCE)
    before = page.evaluate("() => studio.state.clips.length")
    tab(page, "create")
    fill_form(page, "A bell rings.", seconds=0.5, steps=2)
    page.click("#generate")
    page.wait_for_function(f"() => studio.state.clips.length === {before + 1}", timeout=4 * PATIENCE)
    tab(page, "train")
    run = studio.data / "training" / "Zorb-two"
    paused_at = read_progress(run).step
    page.wait_for_function(
        "([words, before]) => Number(document.querySelector(words).textContent.split(' ')[1]) > before",
        arg=["[data-id=Zorb-two] .trainwords", paused_at],
        timeout=4 * PATIENCE,
    )
    card.locator("button[data-do=stop]").click()
    page.click("dialog.sure button[data-do=finish]")
    state(page, "done")
    page.wait_for_selector(".trainrun[data-id='Zorb-two'][data-state=done]", timeout=4 * PATIENCE)
    named = {entry.name for entry in Library(studio.data.parent / "loras").entries()}
    assert "Zorb two" in named
    card.locator("button[data-do=remove]").click()
    page.click("dialog.sure button[data-do=sure]")
    card.wait_for(state="detached")
    assert not run.exists()


def test_a_wrong_folder_and_a_taken_name_are_told(page: Any, clips: Path, tmp_path: Path) -> None:
    tab(page, "train")
    write(page, "data", str(tmp_path / "nowhere"))
    page.wait_for_selector(".notice.bad:has-text('does not exist')")
    assert page.is_disabled("button[data-do=begin]")
    look_at(page, clips)
    write(page, "name", "")
    page.click("button[data-do=begin]")
    page.wait_for_selector(".notice.bad:has-text('name first')")


def test_phone_shows_all_of_it(browser: Any, studio: RunningStudio) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, locale="en-US", has_touch=True)
    page = studio.open(context)
    page.evaluate("() => studio.showTab('train')")  # at this width it may lie behind Gradio's own button
    page.wait_for_selector("#train-name")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    context.close()

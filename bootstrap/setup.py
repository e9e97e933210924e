"""Builds the environment beside the old one, checks it, and only then swaps it in.

A package group that is merely missing is added in place: its lock pins the same versions, so nothing that works is
changed. Anything else (first start, new lock, other graphics card, damage) is built from nothing in a folder of its
own, so a failure, a kill or a power cut leaves the environment in use as it was.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from bootstrap import backend, store, wheels
from bootstrap.installer import (
    Progress,
    SetupError,
    clean_environment,
    downloaded,
    in_words,
    pip_command,
    run_logged,
    tail,
    uv_path,
)
from bootstrap.store import Layout, Stamp

TORCH_INDEX = "https://download.pytorch.org/whl"
PROBE_SECONDS = 3.0
DISK_GB = {backend.CPU: 2.5, backend.DEFAULT: 2.5, backend.ROCM: 20.0}  # needed free; CUDA builds need CUDA_DISK_GB
CUDA_DISK_GB = 9.0
WINDOWS_PATH = 260  # characters of a path, the closing zero counted
OPTIONAL = ("enhancer",)  # groups that are built here and need a compiler; without them everything else works
LONGEST_INSIDE = 191  # of a path below the folder: a licence of torch; measured over all wheels for Windows


def is_current(layout: Layout, groups: tuple[str, ...]) -> bool:
    """Whether the environment in use holds these groups as locked now. Reads files only; a few milliseconds."""
    stamp = store.read_stamp(layout.env)
    if stamp is None:
        return False
    if os.environ.get("MOVA_BACKEND", stamp.backend) != stamp.backend:
        return False
    return all(has(layout, stamp, group) or given_up(layout, group) for group in groups)


def has(layout: Layout, stamp: Stamp, group: str) -> bool:
    """Whether this group is installed as locked now."""
    return stamp.groups.get(group) == layout.lock_hash(group)


def given_up(layout: Layout, group: str) -> bool:
    """Whether this optional group, as locked now, could not be built here; `setup` tries again."""
    try:
        return group in OPTIONAL and _note(layout.env, group).read_text() == layout.lock_hash(group)
    except OSError:
        return False


def _note(env: Path, group: str) -> Path:
    return env / f"mova-without-{group}"


def ensure(layout: Layout, groups: tuple[str, ...], check: bool = False) -> None:
    """Make the environment hold these requirement groups; returns at once if it does.

    Args:
        groups: names of files in requirements/, "base" first. One of OPTIONAL that fails is told and left out.
        check: look at every installed file and at the graphics card, too, and rebuild if something is wrong.

    Raises:
        SetupError: with a message for the user; the environment is as it was.
        KeyboardInterrupt: likewise.
    """
    if not check and is_current(layout, groups):
        return
    with store.exclusive(layout, lambda: _say("Another set-up is running in this folder; waiting for it to end.")):
        store.recover(layout)
        _ensure_needed(layout, tuple(group for group in groups if group not in OPTIONAL), check)
        for group in groups:
            if group in OPTIONAL:
                _offer(layout, group, again=check)


def _offer(layout: Layout, group: str, again: bool) -> None:
    """Add a group that not every machine can build; a failure is told, and kept in mind until `again`."""
    stamp = store.read_stamp(layout.env)
    if stamp is None or has(layout, stamp, group) or (given_up(layout, group) and not again):
        return
    try:
        if not _add_built(layout, stamp, group):
            _build(layout, tuple(dict.fromkeys((*stamp.groups, group))))
    except SetupError as error:
        _note(layout.env, group).write_text(layout.lock_hash(group))
        _say(f"{error}\n\n{_WITHOUT.format(group=group)}")
    else:
        _note(layout.env, group).unlink(missing_ok=True)


def add_optional(layout: Layout, group: str) -> None:
    """Add such a group to an environment that may be in use: no other package is touched. Hold the lock.

    Raises:
        SetupError: it could not be added, which is kept in mind; or the environment is not whole, or not ours.
    """
    stamp = store.read_stamp(layout.env)
    if stamp is None or (layout.env / store.ADDING).exists():
        raise SetupError(f"{layout.env} is not as it should be; close the studio and start: python launch.py setup")
    if has(layout, stamp, group):
        return
    try:
        added = _add_built(layout, stamp, group)
    except SetupError as error:
        _note(layout.env, group).write_text(layout.lock_hash(group))
        raise SetupError(f"{error}\n\n{_WITHOUT.format(group=group)}") from None
    if not added:
        raise SetupError(f"{layout.env} is damaged; close the studio and start: python launch.py setup")
    _note(layout.env, group).unlink(missing_ok=True)


_WITHOUT = (
    "{group!r} could not be built; everything else works without it. It needs a C++ compiler (Debian, Ubuntu: "
    "apt install g++; Windows: Visual Studio Build Tools; macOS: xcode-select --install). Then: python launch.py setup"
)


def _ensure_needed(layout: Layout, groups: tuple[str, ...], check: bool) -> None:
    if is_current(layout, groups) and not (check and _is_damaged(layout)):
        if check:
            _say("The environment is complete and fits this machine.")
        return
    layout.log.write_text("")
    stamp = store.read_stamp(layout.env)
    missing = tuple(group for group in groups if stamp and group not in stamp.groups)
    if stamp and missing and not check and _only_lacks(layout, stamp, groups) and _add(layout, stamp, missing):
        return
    keep = tuple(group for group in (stamp.groups if stamp else ()) if layout.lock_file(group).is_file())
    _build(layout, tuple(dict.fromkeys(("base", *groups, *keep))))


def _only_lacks(layout: Layout, stamp: Stamp, groups: tuple[str, ...]) -> bool:
    """Whether all that is installed is as locked, so that adding a group changes nothing else."""
    if (layout.env / store.ADDING).exists():
        return False  # an addition was killed half-way: nobody knows what is complete
    if os.environ.get("MOVA_BACKEND", stamp.backend) != stamp.backend:
        return False
    return all(stamp.groups[group] == layout.lock_hash(group) for group in groups if group in stamp.groups)


def _is_damaged(layout: Layout) -> bool:
    stamp = store.read_stamp(layout.env)
    if stamp is None or backend.detect().tag != stamp.backend:
        return True
    return not _files_complete(layout, layout.env, stamp.backend)


def _files_complete(layout: Layout, env: Path, tag: str, *more: str) -> bool:
    command = [str(store.python_in(env)), "-I", str(layout.smoke), "--backend", tag, "--files-only", *more]
    try:
        done = subprocess.run(command, env=clean_environment(), capture_output=True, stdin=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0


def _add(layout: Layout, stamp: Stamp, groups: tuple[str, ...]) -> bool:
    """Add groups to the environment in use; False if it turned out to be damaged and must be rebuilt."""
    progress = Progress(len(groups))
    marker = layout.env / store.ADDING
    python = store.python_in(layout.env)
    for group in groups:
        lines = locked_lines(layout, group)
        progress.step(f"Adding {_count(lines)} packages for {group!r}")
        digest = layout.lock_hash(group)
        marker.touch()
        installed = _install(layout, python, lines, progress, f"add-{group}")
        if not _noted(layout, stamp, group, digest, marker, installed):
            return False
        stamp = store.read_stamp(layout.env) or stamp
    progress.line(f"Ready after {progress.elapsed()}.")
    return True


def _noted(layout: Layout, stamp: Stamp, group: str, digest: str, marker: Path, installed: bool) -> bool:
    """Notes in the environment that a group is there now; False where the environment itself is no longer whole.

    Raises:
        SetupError: the packages were not installed.
    """
    if not _files_complete(layout, layout.env, stamp.backend, "--note"):
        return False
    marker.unlink()
    if not installed:
        raise SetupError(_failed(layout, f"The packages for {group!r} could not be installed"))
    store.add_group(layout.env, stamp, group, digest)
    return True


def _add_built(layout: Layout, stamp: Stamp, group: str) -> bool:
    """As `_add`, for a group that is built here: the environment is not touched before all of it is built."""
    progress, python = Progress(1), store.python_in(layout.env)
    lines, digest = locked_lines(layout, group), layout.lock_hash(group)
    progress.step(f"Building {_count(lines)} packages for {group!r} (minutes)")
    made = wheels.make(layout.state, layout.log, python, lines, progress)
    if not made:
        raise SetupError(_failed(layout, f"The packages for {group!r} could not be built"))
    marker = layout.env / store.ADDING
    marker.touch()
    installed = wheels.install(layout.state, layout.log, python, made, progress)
    if not _noted(layout, stamp, group, digest, marker, installed):
        return False
    progress.line(f"Ready after {progress.elapsed()}.")
    return True


def _build(layout: Layout, groups: tuple[str, ...]) -> None:
    started = time.monotonic()
    _say(f"Setting up MOVA Studio in {layout.env} (this can be interrupted and repeated at any time)")
    side = build_beside(layout, groups)
    try:
        kept = store.swap_in(layout, side)
    except OSError as error:
        store.remove(side)
        raise SetupError(f"{layout.env} is in use: close the studio and start again ({error})") from error
    except BaseException:
        store.remove(side)
        raise
    if kept:
        _say(f"      an environment that was not ours was kept as {kept.name}")
    fetched = downloaded(layout.log)
    size = f"; {fetched / 1e6:.0f} MB were downloaded" if fetched else ""
    _say(f"Ready after {in_words(time.monotonic() - started)}{size}.")


def build_beside(layout: Layout, groups: tuple[str, ...]) -> Path:
    """A checked and stamped environment in a folder of its own, ready to be swapped in.

    Raises:
        SetupError: with a message for the user. Then, and after any other exception, nothing is left of it.
    """
    base_lines = locked_lines(layout, "base")
    torch = next((line for line in base_lines if re.match(r"torch\s*==", line)), None)
    progress = Progress(6 if torch else 5)

    progress.step("Looking at the machine")
    try:
        choice = backend.detect() if torch else backend.Choice(backend.CPU, "torch is not needed")
    except ValueError as error:
        raise SetupError(str(error)) from None
    progress.line(f"      {platform.system()} {platform.machine()}, Python {platform.python_version()}")
    progress.line(f"      torch build: {choice.tag} ({choice.reason})")
    if choice.advice:
        progress.line(f"      advice: {choice.advice}")
    check_path_length(layout.root)
    _check_disk(layout, choice.tag if torch else None)

    side = layout.new_side()
    try:
        progress.step("Making an empty environment")
        _make_venv(layout, side, progress)
        python = store.python_in(side)
        if torch:
            progress.step(f"Installing {torch.split(';')[0].strip()}")
            _install_torch(layout, side, torch.split(";")[0].strip(), choice.tag, base_lines, progress)
        needed = [group for group in groups if group not in OPTIONAL]
        digests = {group: layout.lock_hash(group) for group in needed}
        lines = merged_lines([locked_lines(layout, group) for group in needed], without=torch)
        progress.step(f"Installing {_count(lines)} packages ({', '.join(needed)})")
        if not _install(layout, python, lines, progress, "packages"):
            raise SetupError(_failed(layout, "The packages could not be installed"))
        for group in (group for group in groups if group in OPTIONAL):
            progress.line(f"      building {group!r} (minutes)")
            if _install(layout, python, locked_lines(layout, group), progress, f"add-{group}"):
                digests[group] = layout.lock_hash(group)
            else:
                _note(side, group).write_text(layout.lock_hash(group))
                progress.line(f"      {_WITHOUT.format(group=group)}")
        progress.step("Checking that it works")
        _smoke(layout, python, choice.tag, progress)
        progress.step("Putting it in place")
        store.point_scripts_at(side, layout.env)
        store.write_stamp(side, Stamp(choice.tag, digests, store.base_python(side)))
    except BaseException:
        store.remove(side)
        raise
    return side


def check_path_length(root: Path, system: str = os.name) -> None:
    """Windows refuses paths of 260 characters unless it was told otherwise; packages hold long ones.

    Raises:
        SetupError: they would not fit below this folder.
    """
    if system != "nt" or _long_paths_allowed():
        return
    room = WINDOWS_PATH - 2 - len(str(root))  # without the closing zero, and the backslash between
    if room < LONGEST_INSIDE:
        raise SetupError(
            f"The path of this folder is too long for Windows: {root} has {len(str(root))} characters, and at most "
            f"{WINDOWS_PATH - 2 - LONGEST_INSIDE} leave room for the packages. Move the folder to a shorter place, "
            r"such as C:\MOVA, and start again"
        )


def _long_paths_allowed() -> bool:
    if sys.platform != "win32":
        return False
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
            return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])
    except OSError:
        return False


def locked_lines(layout: Layout, group: str) -> list[str]:
    """Pins and pip options of a lock file, without comments and blank lines."""
    try:
        text = layout.lock_file(group).read_text(encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{layout.lock_file(group)} cannot be read: {error.strerror}") from error
    return [line for raw in text.splitlines() if (line := re.sub(r"(^|\s)#.*", "", raw).strip())]


def merged_lines(locks: list[list[str]], without: str | None) -> list[str]:
    """Several locks as one, each line once."""
    return [line for line in dict.fromkeys(line for lock in locks for line in lock) if line != without]


def _count(lines: list[str]) -> int:
    return sum(not line.startswith("-") for line in lines)


def _check_disk(layout: Layout, tag: str | None) -> None:
    if tag is None:
        return
    needed = DISK_GB.get(tag, CUDA_DISK_GB)
    free = shutil.disk_usage(layout.root).free / 1e9
    if free < needed:
        raise SetupError(f"{layout.root} has {free:.1f} GB free; the packages need {needed:.1f} GB while they unpack")


def _make_venv(layout: Layout, side: Path, progress: Progress) -> None:
    command = [sys.executable, "-m", "venv", str(side)]
    if importlib.util.find_spec("ensurepip") is None:
        command.insert(3, "--without-pip")
    if not run_logged(command, progress, layout.log, layout.root):
        raise SetupError(_failed(layout, "Python could not make an environment"))


def index_answers(url: str, seconds: float = PROBE_SECONDS) -> bool:
    """Whether a package index can be reached, through the proxy if one is set; never takes much longer than `seconds`.

    Asked once and before pip, because pip would try again and again, with a timeout of minutes where one is set.
    """
    answers: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds).close()  # noqa: S310
            answers.append(True)
        except urllib.error.HTTPError:
            answers.append(True)  # it spoke to us
        except Exception:
            answers.append(False)  # no route, no name, no certificate: all mean "not from here"

    thread = threading.Thread(target=ask, daemon=True)  # a name look-up ignores the timeout; a thread can be left
    thread.start()
    thread.join(seconds + 1)
    return bool(answers and answers[0])


def torch_pin(pin: str, tag: str, system: str) -> str:
    """The exact build to ask for: "torch==2.13.0+cpu".

    Naming the build makes sure that no installer can take the registry's CUDA build of several GB instead.
    macOS has one build without such a name.
    """
    return pin if tag == backend.DEFAULT or system == "Darwin" else f"{pin}+{tag}"


def _install_torch(layout: Layout, side: Path, pin: str, tag: str, base_lines: list[str], progress: Progress) -> None:
    index = f"{os.environ.get('MOVA_TORCH_INDEX', TORCH_INDEX).rstrip('/')}/{tag}"
    build = torch_pin(pin, tag, platform.system())
    options = ["--only-binary", ":all:"]
    if tag == backend.CPU:
        options += ["--no-deps"]  # all that it needs is in the lock
    else:
        # A CUDA build brings its own libraries, each pinned by torch itself; the rest is held to the lock.
        constraints = side / "constraints.txt"
        constraints.write_text("\n".join(line for line in base_lines if not line.startswith("-")), encoding="utf-8")
        options += ["--constraint", str(constraints)]
    reachable = tag != backend.DEFAULT and index_answers(index + "/")
    if reachable:
        options += ["--extra-index-url", index]
    elif tag != backend.DEFAULT:
        progress.line("      PyTorch's package index does not answer; looking in the configured ones")
    python = store.python_in(side)
    uv = uv_path()
    if uv and (reachable or tag == backend.DEFAULT):
        command = [uv, "pip", "install", "--python", str(python), "--index-strategy", "unsafe-best-match"]
        if run_logged([*command, *options, build], progress, layout.log, layout.root):
            return
        progress.line("      uv could not; pip does it")
    pip = [*pip_command(python), "install", *options]
    if run_logged([*pip, build], progress, layout.log, layout.root):
        return
    if tag == "cu130" and platform.system() == "Linux" and not reachable:
        # The registry's build for Linux is the CUDA 13.0 one, without a name of its own.
        if run_logged([*pip, pin], progress, layout.log, layout.root):
            return
    advice = (
        f"{build} could not be installed. Check the connection to {index}, or name a mirror of it in "
        f"MOVA_TORCH_INDEX. MOVA_BACKEND=cpu installs the build without GPU; MOVA_BACKEND=default takes whatever "
        f"your package index has for {pin} (on Linux several GB of CUDA)"
    )
    raise SetupError(_failed(layout, advice))


def _install(layout: Layout, python: Path, lines: list[str], progress: Progress, name: str) -> bool:
    """Install locked packages, exactly these: `--no-deps`, because the lock is complete."""
    if not _count(lines):
        return True
    listing = layout.state / f"{name}.txt"
    listing.write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = ["--no-deps", "-r", str(listing)]
    total = _count(lines)
    if uv := uv_path():
        command = [uv, "pip", "install", "--python", str(python), *options]
        if run_logged(command, progress, layout.log, layout.root, total):
            return True
        progress.line("      uv could not; pip does it")
    return run_logged([*pip_command(python), "install", *options], progress, layout.log, layout.root, total)


def _smoke(layout: Layout, python: Path, tag: str, progress: Progress) -> None:
    command = [str(python), "-I", str(layout.smoke), "--backend", tag, "--note"]
    done = subprocess.run(
        command, env=clean_environment(), capture_output=True, stdin=subprocess.DEVNULL, encoding="utf-8"
    )
    with layout.log.open("a", encoding="utf-8") as sink:
        sink.write(f"\n$ {' '.join(command)}\n{done.stdout}{done.stderr}")
    for line in done.stdout.splitlines():
        progress.line(f"      {line}")
    if done.returncode:
        raise SetupError(_failed(layout, "The new environment does not work"))


def _failed(layout: Layout, what: str) -> str:
    return f"{what}.\n\n{tail(layout.log)}\n\nThe whole log: {layout.log}"


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()

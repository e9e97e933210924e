"""The command line of launch.py: which command is wanted, is the environment good, hand over to it."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bootstrap import backend, store, update
from bootstrap.installer import SetupError, clean_environment
from bootstrap.setup import OPTIONAL, ensure
from bootstrap.store import Layout

ROOT = Path(__file__).resolve().parent.parent
Command = tuple[str | None, str | None, str, str]
STUDIO: Command = ("app.studio", "studio", "here", "the studio")  # it adds the enhancer itself, once its page answers


def main(commands: Mapping[str, Command], argv: Sequence[str], root: Path | str = ROOT) -> int:
    """Run one command line and return its exit code.

    Args:
        commands: the table in launch.py.
        argv: without the program's name.
        root: the project's folder.

    Returns:
        the command's own exit code; 1 if set-up failed, 2 for a command that does not exist, 130 after Ctrl-C.
        Where the system can replace a process by another (not on Windows), it does not return after hand-over.
    """
    root = Path(root)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a name that this terminal cannot show must not stop set-up
    if argv and argv[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage(commands))
        return 0
    if not argv or argv[0].startswith("-"):
        name, rest, command = "studio", list(argv), STUDIO
    elif argv[0] in commands:
        name, rest, command = argv[0], list(argv[1:]), commands[argv[0]]
    else:
        near = difflib.get_close_matches(argv[0], list(commands), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "python launch.py --help lists the commands."
        return _complain(f"There is no command {argv[0]!r}; {hint}", 2)

    module, wanted, place, _ = command
    layout = Layout(root)
    if (root / update.FOLDER / "journal").is_file() and name != "update":
        return _mend(layout, commands, argv)
    if module and module.startswith("bootstrap."):  # needs no environment, and may change the one there is
        return int(importlib.import_module(module).main(rest, root))
    present = module is None or _exists(module, root)
    if not present and name != "studio":
        return _complain(f"{name!r} is not part of this version.", 2)
    groups = ("base", *(group for group in (wanted or "").split() if layout.lock_file(group).is_file()))
    if module is None and store.read_stamp(layout.env) is None:
        groups = tuple(group for group in groups if group not in OPTIONAL)  # nobody waits for it before the first clip
    try:
        ensure(layout, groups, check=module is None)
    except KeyboardInterrupt:
        return _complain("\nSet-up was interrupted; nothing was changed. Start again to continue.", 130)
    except SetupError as error:
        return _complain(f"\nSet-up failed; nothing was changed. {error}", 1)
    except OSError as error:
        return _complain(f"\nSet-up failed; nothing was changed. {error}", 1)
    if not present:
        sys.stdout.write(
            'The studio is not part of this version. To make a clip: python launch.py generate --prompt "..."\n'
        )
        return 0
    if module is None:
        return 0
    return hand_over(layout, module, rest, root if place == "root" else None)


def _mend(layout: Layout, commands: Mapping[str, Command], argv: Sequence[str]) -> int:
    """An update was killed: the version before is put back, and started in a process of its own."""
    with store.exclusive(layout, lambda: None):
        if update.recover(layout.root):
            sys.stderr.write("An update was interrupted; the version before it is back.\n")
    return subprocess.call([sys.executable, str(layout.root / "launch.py"), *argv])


def usage(commands: Mapping[str, Command]) -> str:
    """What `--help` shows."""
    width = max(map(len, commands))
    lines = [f"  {name:<{width}}  {command[3]}" for name, command in commands.items()]
    return "\n".join(
        [
            "usage: python launch.py [command] [its options]",
            "",
            "Without a command it starts the studio. The first start sets up what is needed (.venv in this folder).",
            "",
            "commands:",
            *lines,
            "",
            "python launch.py COMMAND --help tells about one of them.",
            "",
            "environment variables:",
            f"  MOVA_BACKEND      build of torch: {', '.join(backend.TAGS)} (chosen from the card if not set)",
            "  MOVA_TORCH_INDEX  a mirror of PyTorch's package index",
            "  MOVA_OFFLINE      set to 1 to forbid the network after set-up",
            "  MOVA_NO_UV        set to 1 to install with pip even where uv is present",
            "",
        ]
    )


def hand_over(layout: Layout, module: str, arguments: Sequence[str], folder: Path | None) -> int:
    """Run a module in the environment, in place of this process where the system can do that.

    The project's folder is on the module path; the folder the user stands in is not (`-P`), so a file of theirs
    named like one of ours cannot get in between.
    """
    python = str(store.python_in(layout.env))
    command = [python, "-P", "-m", module, *arguments]
    environment = {name: value for name, value in os.environ.items() if name in clean_environment()}
    environment["PYTHONPATH"] = str(layout.root)
    environment["PYTHONNOUSERSITE"] = "1"
    if os.name != "nt":
        if folder:
            os.chdir(folder)
        os.execve(python, command, environment)  # noqa: S606  (no shell is what we want)
    environment["PYTHONUTF8"] = "1"  # prompts and file names in any language, whatever the console's code page
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command; we wait and pass its answer on
    return subprocess.call(command, env=environment, cwd=folder)


def _exists(module: str, root: Path) -> bool:
    """Whether a module of ours is there; third-party ones are taken for granted."""
    path = root.joinpath(*module.split("."))
    if not path.parent.is_dir() or path.parent == root:
        return "." not in module
    return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def _complain(text: str, code: int) -> int:
    sys.stderr.write(text + "\n")
    return code

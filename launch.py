"""The one entry point: sets up whatever is missing, then starts what was asked for.

    python launch.py                    the studio
    python launch.py generate --help    one of the commands in the table below
    python launch.py --help             all of them

Standard library only. This file must stay readable to very old Pythons (no annotations, no f-strings), because
its first duty is to tell their users, in one line, which Python is needed. The work is done in bootstrap/.
"""

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036  (told to old Pythons)
    message = "MOVA Studio needs Python 3.11 or newer; this is Python {}.{} ({}). "
    message += "Get a newer one from python.org and start launch.py with it."
    sys.exit(message.format(sys.version_info[0], sys.version_info[1], sys.executable))

# name: (module to run, requirement groups beyond the base, folder to run in, one line of help).
# A new command is a new line here; `python -m MODULE` must work in the finished environment.
# The folder is "here" (relative paths mean what the user means) or "root" (the project's own folder).
COMMANDS = {
    "generate": ("app.generate", None, "here", "make one clip from a prompt and a picture"),
    "train": ("engine.training.cli", None, "here", "train or adapt a model on your own clips"),
    "lora": ("engine.lora.cli", None, "here", "list, check, add and convert LoRA files"),
    "evaluate": ("engine.evaluation.cli", None, "here", "score clips: picture, sound, and how well they agree"),
    "enhance": ("prompt_enhancer.cli", "enhancer", "here", "turn an idea into a prompt, on this machine"),
    "models": ("engine.downloads.cli", None, "here", "fetch, verify, move and remove models"),
    "doctor": ("engine.doctor", None, "here", "say what this machine can do and what is wrong (--json)"),
    "bench": ("tests.bench", None, "root", "measure this machine: every way to run, kernels, plans"),
    "test": ("pytest", "test studio enhancer", "root", "run all tests; takes pytest's own arguments"),
    "setup": (None, "studio enhancer", "root", "check the environment and repair or rebuild it"),
    "update": ("bootstrap.update", None, "here", "change to another version (an archive), or back to the one before"),
    "shortcuts": ("bootstrap.shortcuts", None, "here", "make entries in the start menu and on the desktop"),
    "uninstall": ("bootstrap.uninstall", None, "here", "say what goes and what stays, and take the installation away"),
    "package": ("bootstrap.package", None, "here", "make a release archive of this tree"),
}

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    if not os.path.isdir(os.path.join(here, "bootstrap")):
        # An update was killed between two renames: the version before lies here, and puts itself back.
        sys.path.insert(0, os.path.join(here, ".update", "old"))
    from bootstrap.front import main

    sys.exit(main(COMMANDS, sys.argv[1:], here))

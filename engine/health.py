"""Checks of what was installed: torch's build, models, language model, network settings, results, last errors.

Each is a function that takes nothing and returns one `Finding`; engine/doctor.py lists them with its own.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from engine.downloads.hub import is_offline
from engine.downloads.layout import describe_folder
from engine.downloads.shelf import Shelf
from engine.downloads.token import note_file, token_file
from engine.errors import CheckpointError
from engine.finding import Finding
from engine.folders import MODEL_INDEX, data_folder, fault_of, read_places

ROOT = Path(__file__).resolve().parent.parent
SETUP = "python launch.py setup"
PORT = 7860  # where the studio opens unless told otherwise
PROXY_SECONDS = 3.0
CHILD_SECONDS = 60
LAST_BYTES = 200_000  # of the log: what "lately" means


def check_environment() -> Finding:
    """The environment that launch.py made: finished, and by which torch."""
    env = ROOT / ".venv"
    if Path(sys.prefix).resolve() != env.resolve():
        return Finding("environment", "ok", "not the one of launch.py: whoever made it looks after it")
    try:
        stamp = json.loads((env / "mova-setup.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Finding("environment", "fail", "its set-up was not finished, or was damaged later", SETUP)
    if (env / "mova-adding").exists():
        return Finding("environment", "warn", "packages were being added when that was interrupted", SETUP)
    return Finding("environment", "ok", f"complete: {', '.join(stamp['groups'])}; torch for {stamp['backend']}")


def check_build() -> Finding:
    """The build of torch against the cards and their driver."""
    import torch

    from bootstrap import backend

    choice = backend.detect()
    there = torch.__version__.partition("+")[2] or backend.DEFAULT
    details = {"installed": there, "fitting": choice.tag, "reason": choice.reason}
    if choice.advice:
        return Finding("torch build", "warn", choice.reason, choice.advice, details)
    if choice.tag == backend.DEFAULT or there == choice.tag:
        return Finding("torch build", "ok", f"{there} ({choice.reason})", details=details)
    if choice.tag == backend.CPU:
        summary = f"{there} is for a graphics card, and there is none to use ({choice.reason}); it only takes space"
        return Finding("torch build", "ok", summary, details=details)
    summary = f"{there}, but {choice.tag} fits this machine ({choice.reason})"
    return Finding("torch build", "fail", summary, SETUP, details)


def check_models() -> Finding:
    """Installed models are whole as far as names, sizes and headers tell; begun downloads; absent drives."""
    shelf = Shelf(data_folder())
    broken: dict[str, str] = {}
    todo = ""
    for model in shelf.installed():
        missing = shelf.faults_at_a_glance(model.name, model.folder)
        reason = f"{', '.join(missing[:3])} missing or cut short" if missing else fault_of(model.folder)
        reason = reason or _misshapen(model.folder)
        if reason:
            broken[model.name] = reason
            repairable = model.ours and model.manifest is not None and model.manifest.repository
            verify = f"python launch.py models verify {model.name} --repair"
            todo = todo or (verify if repairable else f"replace the files in {model.folder}")
    details = {"installed": [model.name for model in shelf.installed()], "broken": broken}
    if broken:
        summary = "; ".join(f"{name}: {reason}" for name, reason in broken.items())
        return Finding("models", "fail", summary, todo, details)
    places = read_places(shelf.data)
    gone = [str(place.path) for place in places.elsewhere.values() if not place.path.exists()]
    gone += [str(places.folder)] if places.folder != shelf.data / "models" and not places.folder.exists() else []
    if gone:
        todo = "connect that drive, or choose another folder: python launch.py models where --new FOLDER"
        return Finding("models", "warn", f"not to be found now: {', '.join(gone)}", todo, details)
    if begun := shelf.unfinished():
        names = ", ".join(f"{one.name} ({one.done / 1e9:.1f} of {one.size / 1e9:.1f} GB)" for one in begun)
        return Finding("models", "warn", f"begun: {names}", f"python launch.py models get {begun[0].name}", details)
    if not details["installed"]:
        return Finding("models", "warn", "none is installed", "python launch.py models list", details)
    return Finding("models", "ok", ", ".join(details["installed"]), details=details)


def check_models_deeply() -> Finding:
    """Every byte of every model whose hashes are known."""
    shelf, read = Shelf(data_folder()), []
    for model in shelf.installed():
        if model.manifest is None:
            continue
        read.append(model.name)
        if bad := shelf.verify(model.name):
            todo = f"python launch.py models verify {model.name} --repair"
            return Finding("models, byte by byte", "fail", f"{model.name}: {', '.join(bad[:3])} damaged", todo)
    return Finding("models, byte by byte", "ok", f"as promised: {', '.join(read) or 'none came with hashes'}")


def _misshapen(folder: Path) -> str:
    if not (folder / MODEL_INDEX).is_file():
        return ""
    try:
        describe_folder(folder)
    except CheckpointError as error:
        return str(error).replace(f"{folder}{os.sep}", "")
    return ""


def check_language_model() -> Finding:
    """llama-cpp-python loads, tried in a process of its own: a build for another processor ends the one it is in."""
    command = [sys.executable, "-c", "import llama_cpp; print(llama_cpp.__version__)"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=CHILD_SECONDS)
    except subprocess.TimeoutExpired:
        return Finding("language model", "warn", "llama-cpp-python does not come to an end of loading", SETUP)
    if done.returncode == 0:
        return Finding("language model", "ok", f"llama-cpp-python {done.stdout.strip()}")
    if "No module named 'llama_cpp'" in done.stderr:
        todo = f"a C++ compiler (g++, Visual Studio Build Tools or Xcode's tools), then: {SETUP}"
        return Finding("language model", "warn", "not built here; prompts are enhanced by rules alone", todo)
    reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
    return Finding("language model", "warn", f"llama-cpp-python does not load: {reason}", SETUP)


def check_port() -> Finding:
    """Whether the studio's usual port is free on this machine."""
    with socket.socket() as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that just ended does not count
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            todo = "nothing, if that is the studio; otherwise it takes the next free port, or --port NUMBER"
            return Finding("port", "warn", f"{PORT} is taken by another program", todo, {"port": PORT})
    return Finding("port", "ok", f"{PORT} is free", details={"port": PORT})


def check_proxy() -> Finding:
    """The proxy of the system's settings: sensible, there, and not in the way of the studio's own page."""
    proxies = {kind: url for kind, url in urllib.request.getproxies().items() if kind in ("http", "https", "all")}
    if not proxies:
        return Finding("proxy", "ok", "none is set")
    kind, url = next(iter(proxies.items()))
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        host, port = parts.hostname, parts.port or (1080 if parts.scheme.startswith("socks") else 80)
    except ValueError:
        host, port = None, 0
    if not host:
        todo = f"set {kind.upper()}_PROXY to something like http://proxy:8080, or unset it"
        return Finding("proxy", "fail", f"{url} is not the address of a proxy", todo)
    if not urllib.request.proxy_bypass("127.0.0.1") and not urllib.request.proxy_bypass("localhost"):
        todo = "set NO_PROXY=127.0.0.1,localhost"
        return Finding("proxy", "warn", f"{host}:{port} is used for this machine's own pages, too", todo)
    if is_offline():
        return Finding("proxy", "ok", f"{host}:{port} is set; not tried, because the network is switched off")
    try:
        socket.create_connection((host, port), timeout=PROXY_SECONDS).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        todo = f"correct {kind.upper()}_PROXY, or unset it where there is no proxy"
        return Finding("proxy", "fail", f"{host}:{port} does not answer: {reason}", todo)
    return Finding("proxy", "ok", f"{host}:{port} answers")


def check_token() -> Finding:
    """The hub's token is for its owner's eyes."""
    path = token_file(data_folder())
    if note_file(data_folder()).is_file():
        return Finding("token", "ok", "kept in the system's keyring")
    if not path.is_file():
        return Finding("token", "ok", "none is kept; none is needed for the models of the list")
    if os.name != "nt" and path.stat().st_mode & 0o077:
        return Finding("token", "warn", f"{path} can be read by other users", f"chmod 600 '{path}'")
    return Finding("token", "ok", "kept, for its owner alone")


def check_results() -> Finding:
    """The list of jobs and clips can be read."""
    path = data_folder() / "studio.sqlite3"
    if not path.is_file():
        return Finding("results", "ok", "none yet")
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        try:
            [answer] = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return Finding("results", "ok", "in use just now; not looked at")
        answer = str(error)
    except sqlite3.DatabaseError as error:
        answer = str(error)
    if answer != "ok":
        todo = f"close the studio and rename {path}; at its next start it is made anew from the clips themselves"
        return Finding("results", "fail", f"the list of clips is damaged: {answer}", todo)
    return Finding("results", "ok", f"{path.stat().st_size / 1e6:.1f} MB")


def check_errors() -> Finding:
    """Errors in the studio's log."""
    path = data_folder() / "studio.log"
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LAST_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return Finding("errors", "ok", "no log yet")
    errors = [line for line in lines if re.search(r"\b(ERROR|CRITICAL)\b", line)]
    if errors:
        last = errors[-1][:300]
        return Finding("errors", "warn", f"{len(errors)} lately, the last: {last}", f"the whole log: {path}")
    return Finding("errors", "ok", f"none in the last {len(lines)} lines")

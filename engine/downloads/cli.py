"""The models command: list, get, verify, remove, where, move, token."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from engine.downloads.files import existing
from engine.downloads.hub import DownloadError, Hub
from engine.downloads.manifest import Plan
from engine.downloads.shelf import Shelf, catalogue_of
from engine.downloads.token import keep_token, read_token, token_file
from engine.downloads.transfer import CONNECTIONS, Progress
from engine.errors import Cancelled, CheckpointError, MovaError

SECONDS_BETWEEN_LINES = 10.0  # where the output is no terminal


class Line:
    """Progress on the screen: one line that changes in place, or a line now and then where there is no terminal."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last = 0.0
        self._shown = False

    def __call__(self, progress: Progress) -> None:
        done = progress.done >= progress.total
        text = f"{progress.stage} {size_text(progress.done)} of {size_text(progress.total)}"
        if progress.rate and not done:
            text += f", {size_text(progress.rate)}/s"
        if progress.seconds_left is not None and not done:
            text += f", {time_text(progress.seconds_left)} left"
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write("\r\033[K" + f"{text}  {progress.file}"[:width])
            self._shown = True
        elif done or time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            sys.stderr.write(f"{text}  {progress.file}\n")
        sys.stderr.flush()

    def end(self) -> None:
        if self._shown:
            sys.stderr.write("\n")


def size_text(size: float) -> str:
    """Bytes for people; decimal units, as drives are sold."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} bytes"


def time_text(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 90:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"


def build_parser() -> argparse.ArgumentParser:
    """The command line, whole."""
    parser = argparse.ArgumentParser(prog="launch.py models", description="Models on this machine.")
    parser.add_argument("--data-dir", type=Path, help="the studio's data folder, where it is not the usual one")
    parser.add_argument("--verbose", action="store_true", help="tell about every new try")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="what there is, and what could be fetched")
    listing.add_argument("--json", action="store_true", help="for programs")

    network = argparse.ArgumentParser(add_help=False)
    network.add_argument("--mirror", default="", metavar="URL", help="a mirror of the hub (or set HF_ENDPOINT)")
    network.add_argument("--proxy", default="", metavar="URL", help="a proxy (else the system's settings hold)")
    network.add_argument("--offline", action="store_true", help="never use the network (or set MOVA_OFFLINE=1)")
    network.add_argument("--connections", type=int, default=CONNECTIONS, choices=range(1, 17), metavar="1..16")

    get = commands.add_parser("get", parents=[network], help="fetch a model, or go on with a begun download")
    get.add_argument("name", help="from the list, or OWNER/NAME on the hub")
    get.add_argument("--from", dest="source", type=Path, action="append", default=[], metavar="FOLDER")
    get.add_argument("--to", type=Path, metavar="FOLDER", help="put it below this folder, perhaps on another drive")
    get.add_argument("--revision", default="", help="branch, tag or commit")
    get.add_argument("--yes", action="store_true", help="do not ask before fetching")

    verify = commands.add_parser("verify", parents=[network], help="read every byte and compare")
    verify.add_argument("name")
    verify.add_argument("--repair", action="store_true", help="fetch again what is damaged")

    remove = commands.add_parser("remove", help="delete a model or a begun download")
    remove.add_argument("name")
    remove.add_argument("--yes", action="store_true", help="do not ask")

    where = commands.add_parser("where", help="the folders of models, and the space there")
    where.add_argument("--new", type=Path, metavar="FOLDER", help="put new models there from now on")

    move = commands.add_parser("move", help="move a model to another folder or drive")
    move.add_argument("name")
    move.add_argument("folder", type=Path)

    token = commands.add_parser("token", help="keep the hub's token for models that ask who you are")
    token.add_argument("--forget", action="store_true")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 where verify found damage; 2 for an error, told in one line; 130 after Ctrl-C."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("engine.downloads").setLevel(logging.INFO if args.verbose else logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    shelf, stop = Shelf(args.data_dir), threading.Event()

    def pause(number: int, frame: FrameType | None) -> None:
        stop.set()
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, pause)
    try:
        return int(globals()[f"_{args.command}"](args, shelf, stop))
    except (Cancelled, KeyboardInterrupt):
        sys.stderr.write("\nPaused. The same command goes on where this one stopped.\n")
        return 130
    except (MovaError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        signal.signal(signal.SIGTERM, former)


def _hub(args: argparse.Namespace, shelf: Shelf, stop: threading.Event) -> Hub:
    return Hub(args.mirror, read_token(shelf.data), args.proxy, args.offline, stop)


def _list(args: argparse.Namespace, shelf: Shelf, stop: threading.Event) -> int:
    installed, begun = shelf.installed(), shelf.unfinished()
    if args.json:
        report = {
            "installed": [
                {"name": m.name, "folder": str(m.folder), "bytes": m.size, "ours": m.ours} for m in installed
            ],
            "unfinished": [{"name": u.name, "bytes": u.done, "of": u.size} for u in begun],
            "catalogue": [
                {"name": e.name, "repository": e.repository, "licence": e.licence, "bytes": e.size}
                for e, _, _ in catalogue_of(shelf)
            ],
        }
        print(json.dumps(report, indent=1))
        return 0
    for model in installed:
        print(f"{model.name:<12} installed   {size_text(model.size):>9}  {model.folder}")
    for one in begun:
        print(
            f"{one.name:<12} unfinished  {size_text(one.done):>9} of {size_text(one.size)}; get goes on, remove deletes"
        )
    there = {model.name for model in installed} | {one.name for one in begun}
    for entry, _, _ in catalogue_of(shelf):
        if entry.name not in there:
            print(
                f"{entry.name:<12} to fetch    {size_text(entry.size):>9}  {entry.title}; {entry.licence}; {entry.note}"
            )
    return 0


def _get(args: argparse.Namespace, shelf: Shelf, stop: threading.Event) -> int:
    line = Line()
    with _hub(args, shelf, stop) as hub:
        for source in args.source:
            if (source / "model_index.json").is_file():
                try:
                    model = shelf.adopt(args.name, source, None if hub.offline else hub, line)
                except CheckpointError as error:
                    if hub.offline:
                        raise
                    line.end()
                    print(f"{error}. Taking from it what can be used.")
                    continue
                line.end()
                print(f"{model.name} is used from {model.folder}, verified; nothing was copied.")
                return 0
        plan = shelf.plan(args.name, hub, args.to, args.revision)
        _tell(plan)
        if not args.yes and plan.to_fetch and not _agreed("Fetch it?"):
            return 130
        model = shelf.get(
            plan, hub, line, args.source, args.connections, lambda: print("Another download is running; waiting.")
        )
        line.end()
        print(f"{model.name} is in {model.folder}, verified. {size_text(hub.received)} came over the network.")
    return 0


def _tell(plan: Plan) -> None:
    entry = plan.entry
    print(f"{entry.name}: {entry.title}. Licence: {entry.licence}. {entry.repository} at {plan.commit[:10]}")
    shared = f", {size_text(plan.present)} of it here already" if plan.present else ""
    print(f"{size_text(plan.size)} in {len(plan.files)} files{shared}; to {plan.folder}, {size_text(plan.free)} free")


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise DownloadError(f"{question} There is nobody to ask here: add --yes")
    return input(f"{question} [Y/n] ").strip().lower() in ("", "y", "yes")


def _verify(args: argparse.Namespace, shelf: Shelf, stop: threading.Event) -> int:
    line, model = Line(), shelf.find(args.name)
    bad = shelf.verify(args.name, line, stop)
    line.end()
    if not bad:
        print(f"{model.name} is whole: every byte is as it was promised.")
        return 0
    print(f"{model.name} is damaged: {', '.join(bad)}")
    if not args.repair:
        print(f"-> python launch.py models verify {model.name} --repair")
        return 1
    with _hub(args, shelf, stop) as hub:
        shelf.repair(model, hub, line, args.connections)
        line.end()
        print(f"{model.name} is whole again. {size_text(hub.received)} came over the network.")
    return 0


def _remove(args: argparse.Namespace, shelf: Shelf, stop: threading.Event) -> int:
    if not args.yes and not _agreed(f"Delete {args.name}?"):
        return 130
    what, size = shelf.remove(args.name)
    print(f"Removed {what}; {size_text(size)} free again.")
    return 0


def _where(args: argparse.Namespace, shelf: Shelf, stop: threading.Event) -> int:
    if args.new:
        shelf.choose_folder(args.new)
    folders = dict.fromkeys([shelf.folder, *(model.folder.parent for model in shelf.installed())])
    for folder in folders:
        note = "  (new models go here)" if folder == shelf.folder else ""
        print(f"{folder}  {size_text(shutil.disk_usage(existing(folder)).free)} free{note}")
    return 0


def _move(args: argparse.Namespace, shelf: Shelf, stop: threading.Event) -> int:
    line = Line()
    model = shelf.move(args.name, args.folder, line, stop)
    line.end()
    print(f"{model.name} is in {model.folder} now.")
    return 0


def _token(args: argparse.Namespace, shelf: Shelf, stop: threading.Event) -> int:
    if args.forget:
        keep_token(shelf.data, "")
        print("The token is forgotten.")
        return 0
    token = getpass.getpass("Token (it is not shown): ") if sys.stdin.isatty() else sys.stdin.readline()
    places = {"keyring": "the system's keyring", "file": f"{token_file(shelf.data)}, for you alone to read"}
    place = keep_token(shelf.data, token)
    print(f"Kept in {places[place]}." if place else "No token was given; the kept one is forgotten.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

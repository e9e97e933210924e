"""`python launch.py lora`: the library of LoRAs, and files of other kinds to our own form.

python launch.py lora list
python launch.py lora show FILE [--model MODEL]     every key, and what becomes of it
python launch.py lora add FILE
python launch.py lora convert FILE.pt [--alpha 32] [--tower both]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.errors import MovaError
from engine.folders import find_model
from engine.lora.fit import TOWERS, fit, folder_shapes
from engine.lora.formats import read_lora
from engine.lora.library import Entry, Library, describe
from engine.lora.values import check_finite

EXIT_WRONG = 2


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="launch.py lora", description="LoRA files: list, judge, add, convert.")
    parser.add_argument("--library", type=Path, help="the LoRA folder; the user's own where not given")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="what is in the library")
    listing.add_argument("--json", action="store_true", help="print as JSON")
    show = commands.add_parser("show", help="what a file holds and whether it fits a model")
    show.add_argument("file", help="a file, a PEFT folder, or a name in the library")
    show.add_argument("--model", help="name or folder of the model; the bundled one where not given")
    show.add_argument("--tower", choices=TOWERS, help="where keys go that do not say it")
    add = commands.add_parser("add", help="check files and copy them into the library")
    add.add_argument("files", nargs="+", type=Path)
    change = commands.add_parser("convert", help="write a .pt file, or any other form, as safetensors of our own form")
    change.add_argument("file", type=Path)
    change.add_argument("--out", type=Path, help="the new file; beside the old one where not given")
    change.add_argument("--alpha", type=float, help="where the file does not say it, or says it wrongly")
    change.add_argument("--tower", choices=TOWERS, help="where names do not say it")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = build_parser().parse_args(argv)
    try:
        {"list": _list, "show": _show, "add": _add, "convert": _convert}[args.command](args)
    except MovaError as error:
        print("lora: " + " ".join(str(error).split()), file=sys.stderr)
        return EXIT_WRONG
    except KeyboardInterrupt:
        print("lora: stopped", file=sys.stderr)
        return 130
    return 0


def _list(args: argparse.Namespace) -> None:
    library = Library(args.library)
    entries = library.entries()
    if args.json:
        print(json.dumps([describe(e) for e in entries], ensure_ascii=False, indent=2))
        return
    for entry in entries:
        print(_line(entry))
    if not entries:
        print(f"no LoRA in {library.folder} yet; add one with: python launch.py lora add FILE")


def _line(entry: Entry) -> str:
    if entry.fault:
        return f"{entry.sha256[:8]}  {entry.path.name}: cannot be used: {entry.fault}"
    words = [f"rank {'/'.join(map(str, entry.ranks)) or '-'}", f"{entry.size / 2**20:.1f} MiB"]
    words += [f"say: {', '.join(entry.about.triggers)}"] if entry.about.triggers else []
    words += ["which tower?"] if entry.needs_tower else []
    words += ["no effect: all zero"] if entry.weak else []
    return f"{entry.sha256[:8]}  {entry.name}  {', '.join(words)}"


def _show(args: argparse.Namespace) -> None:
    path, tower = Path(args.file).expanduser(), args.tower
    if not path.exists():
        entry = Library(args.library).find(args.file)
        path, tower = entry.path, tower or entry.tower
    file = read_lora(path)
    check_finite(file.header)
    placed = fit(file, folder_shapes(find_model(args.model)), tower)
    for line in placed.report:
        print(f"{line.status:8} {line.key}  ->  {line.text}")
    for text in placed.warnings:
        print(f"note: {text}")
    print(placed.summary())


def _add(args: argparse.Namespace) -> None:
    library = Library(args.library)
    for path in args.files:
        print(_line(library.add(path.expanduser())))


def _convert(args: argparse.Namespace) -> None:
    from engine.lora.convert import convert

    done = convert(args.file.expanduser(), args.out, args.alpha, args.tower)
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    print(done.path)


if __name__ == "__main__":
    sys.exit(main())

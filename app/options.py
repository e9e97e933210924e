"""The studio's command line: `python launch.py [options]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from app.errors import StudioError

DEFAULT_PORT = 7860
EXIT_WRONG = 2


@dataclass(frozen=True)
class Options:
    """What was asked for at the start.

    Attributes:
        port: first port to try; `port_fixed` when the user named it, so that no other is taken.
        browser: open the page. data_dir: None is the system's place. model: name or folder; None is the setting's.
        share: make a public link. listen: address to listen on besides this machine, None is this machine only.
        auth: (user, password) pairs that may log in. named: each user of --auth-file keeps their own clips;
            otherwise each browser does.
        language: "auto", "en" or "zh". offline: never reach for the network. mcp: serve MCP at /mcp.
    """

    port: int = DEFAULT_PORT
    port_fixed: bool = False
    browser: bool = True
    data_dir: Path | None = None
    model: str | None = None
    share: bool = False
    listen: str | None = None
    auth: tuple[tuple[str, str], ...] = ()
    named: bool = False
    language: str = "auto"
    offline: bool = False
    mcp: bool = False

    @property
    def shared(self) -> bool:
        """Whether others than this machine can reach the page: then a password is needed."""
        return self.share or self.listen is not None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"studio: {message}", file=sys.stderr)
        sys.exit(EXIT_WRONG)


def _parser() -> _Parser:
    p = _Parser(prog="launch.py", description="Opens the studio in the browser.")
    p.add_argument("--port", type=int, help=f"port of the page; {DEFAULT_PORT}, or the next free one")
    p.add_argument("--no-browser", action="store_true", help="do not open the page")
    p.add_argument("--data-dir", type=Path, help="where results and settings live")
    p.add_argument("--model", help="name or folder of the model; the bundled one where not given")
    p.add_argument("--share", action="store_true", help="also make a public link, behind a password")
    p.add_argument(
        "--listen",
        nargs="?",
        const="0.0.0.0",  # noqa: S104 - that is what the flag is for
        metavar="ADDRESS",
        help="also let your network in, behind a password",
    )
    p.add_argument("--auth", metavar="USER:PASSWORD", help="user and password; made and printed where needed")
    p.add_argument("--auth-file", type=Path, help="a line USER:PASSWORD for each who may log in")
    p.add_argument("--lang", choices=("auto", "en", "zh"), default="auto", help="language of the page")
    p.add_argument("--offline", action="store_true", help="never reach for the network")
    p.add_argument("--mcp", action="store_true", help="serve the Model Context Protocol at /mcp")
    return p


def parse(argv: Sequence[str] | None = None) -> Options:
    """Options from the command line; exits with 2 and one line where they are wrong.

    Raises:
        StudioError: the file of --auth-file cannot be used.
    """
    args = _parser().parse_args(argv)
    if args.port is not None and not 0 <= args.port <= 65535:
        _parser().error(f"port {args.port} is out of range; use one from 1024 to 65535, or 0 for any free one")
    if args.share and args.offline:
        _parser().error("--share needs the network, and --offline forbids it; give one of the two")
    auth = [] if args.auth is None else [_pair(args.auth, "--auth")]
    if args.auth_file is not None:
        auth += _auth_file(args.auth_file)
    return Options(
        port=DEFAULT_PORT if args.port is None else args.port,
        port_fixed=args.port is not None,
        browser=not args.no_browser,
        data_dir=args.data_dir,
        model=args.model,
        share=args.share,
        listen=args.listen,
        auth=tuple(auth),
        named=args.auth_file is not None,
        language=args.lang,
        offline=args.offline,
        mcp=args.mcp,
    )


def _pair(text: str, where: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not colon or not user or not password:
        raise StudioError(f"{where} must be USER:PASSWORD, neither of them empty")
    return user, password


def _auth_file(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StudioError(f"--auth-file {path} cannot be read: {error}") from None
    pairs = [
        _pair(line.strip(), f"line {number} of {path.name}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not pairs:
        raise StudioError(f"--auth-file {path} names nobody; write a line USER:PASSWORD")
    return pairs

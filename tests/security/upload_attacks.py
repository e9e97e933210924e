"""Files that pose as pictures, and bodies past the limit."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Mapping

from PIL import Image

from tests.security.attacked import SECRET, Target


def posing_pictures() -> dict[str, bytes]:
    """Files that claim to be pictures, by name; none may be taken, but for those whose name begins with "good"."""
    html = b"<html><script>alert('%s')</script></html>" % SECRET.encode()
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script/></svg>'
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 10, 10)).save(out, "PNG")
    png = out.getvalue()

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = b"\x89PNG\r\n\x1a\n"
    bomb = head + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb += chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
    gif = io.BytesIO()
    Image.new("P", (8, 8)).save(gif, "GIF")
    return {
        "page.png": html,
        "page.html": html,
        "drawing.svg": svg,
        "drawing.png": svg,
        "half.png": png[: len(png) // 2],
        "header.png": head + html,
        "bomb.png": bomb,
        "animated.png": gif.getvalue(),
        "empty.png": b"",
        "zip.jpg": b"PK\x03\x04" + bytes(200),
        "code.webp": b"RIFF\x10\x00\x00\x00WEBP" + html,
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(50),
        "good.png": png,
        "good, with html behind.png": png + html,
        'good "><script>.png': png,
        "good ../../etc/passwd": png,
    }


def uploads(at: Target) -> None:
    """Files that are no pictures, pictures that hide something, and bodies past the limit with and without a length."""
    guest = at.guests[1]
    for name, data in posing_pictures().items():
        taken = []
        for path, part in (("/studio/upload", "file"), ("/v1/videos", "input_reference"), ("/studio/settings", "file")):
            body, kind = multipart(part, name, data)
            answer = at.ask("uploads", "POST", path, guest | {"content-type": kind}, body)
            taken.append(answer.status == 200)
            if answer.status == 200 and path == "/studio/upload":
                _served_again(at, json.loads(answer.body)["url"], guest)
        url = "data:image/png;base64," + base64.b64encode(data).decode()
        body = json.dumps({"prompt": "x", "input_reference": url}).encode()
        taken.append(at.ask("uploads", "POST", "/v1/videos", guest, body).status in (200, 429))
        good = name.startswith("good")
        if any(taken) and not good:
            at.toll.fault(f"uploads: {name} was taken")
        if good and not taken[0]:
            at.toll.fault(f"uploads: {name} was not taken")
        body, kind = multipart("files", name, data)
        answer = at.ask("uploads", "POST", "/gradio_api/upload", guest | {"content-type": kind}, body)
        if answer.status == 200:
            at.toll.fault(f"uploads: {name} went past our own upload")
        for job in at.core.queue.find(at.visitors[1].owner):
            at.core.queue.cancel(job.id, None)
    limit = (at.core.settings.current.upload_megabytes << 20) + (2 << 20)
    for path in ("/studio/upload", "/studio/settings", "/v1/videos", "/login", "/gradio_api/queue/join", "/mcp/"):
        for headers in ({"content-length": str(limit)}, {"content-length": "9" * 30}, {"content-length": "-1"}):
            answer = at.ask("uploads", "POST", path, guest | headers)
            if answer.status not in (400, 413):
                at.toll.fault(f"uploads: {path} with {headers} -> {answer.status}")
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        body = piece * (limit // 65536 + 1) + b"0\r\n\r\n"
        answer = at.ask("uploads", "POST", path, guest | {"transfer-encoding": "chunked"}, body)
        if answer.status not in (0, 400, 404, 413):
            at.toll.fault(f"uploads: {path} in pieces -> {answer.status}")


def multipart(part: str, name: str, data: bytes) -> tuple[bytes, str]:
    """A form's body with one file, and its content type."""
    line = "edge-of-a-part"
    shown = name.replace('"', "%22")
    head = f'--{line}\r\ncontent-disposition: form-data; name="{part}"; filename="{shown}"\r\n'
    prompt = f'--{line}\r\ncontent-disposition: form-data; name="prompt"\r\n\r\nx\r\n'
    head += "content-type: image/png\r\n\r\n"
    return (prompt + head).encode() + data + f"\r\n--{line}--\r\n".encode(), f"multipart/form-data; boundary={line}"


def _served_again(at: Target, url: str, guest: Mapping[str, str]) -> None:
    """What comes back must be a PNG of ours, without anything that was hidden in the one that came."""
    answer = at.ask("uploads", "GET", url, guest)
    assert answer.headers is not None
    with Image.open(io.BytesIO(answer.body)) as picture:
        if picture.format != "PNG" or answer.headers["content-type"] != "image/png":
            at.toll.fault(f"uploads: {url} comes back as {answer.headers['content-type']}")
    if b"<script>" in answer.body or answer.headers["x-content-type-options"] != "nosniff":
        at.toll.fault(f"uploads: {url} still carries what was hidden in it")

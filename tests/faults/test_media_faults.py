"""What goes wrong around media files: full disks, dying encoders, damaged and posing files. Nothing half-made stays."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.errors import MediaError, OutputError
from engine.media import (
    Clip,
    atomic_file,
    export_frame_png,
    export_gif,
    export_join,
    export_trim,
    export_wav,
    export_webm,
    ffmpeg,
    probe,
    read_audio,
    read_clip,
    read_settings,
    write_clip,
)
from tests.faults.mutate_media import BOUND, PASSES, campaign

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX only")
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def noisy_clip(count: int = 24) -> Clip:
    rng = np.random.default_rng(5)
    frames = rng.integers(0, 256, (count, 64, 96, 3), np.uint8)
    samples = (0.2 * rng.standard_normal(round(count / 24 * 16_000))).astype(np.float32)
    return Clip(frames, samples, 24.0, 16_000, {"seed": 1})


CLIP = noisy_clip()


def write(path: Path, clip: Clip = CLIP) -> object:
    return write_clip(path, clip.frames, clip.samples, clip.fps, clip.sample_rate, {"seed": 1})


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.mp4": write,
    "a.webm": lambda path: export_webm(path, CLIP),
    "a.gif": lambda path: export_gif(path, CLIP),
    "a.wav": lambda path: export_wav(path, CLIP.samples, CLIP.sample_rate),
    "a.png": lambda path: export_frame_png(path, CLIP, index=3),
    "trim.mp4": lambda path: export_trim(path, CLIP, 0.25, 0.75),
    "join.mp4": lambda path: export_join(path, [CLIP, CLIP]),
}


def one_line(caught: pytest.ExceptionInfo[MediaError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


@contextlib.contextmanager
def tiny_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of `size`; the test is skipped where it may not be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=False
    ).returncode
    if mounted:
        pytest.skip("no right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@POSIX
@pytest.mark.skipif(not ROOT, reason="mounting needs root")
@pytest.mark.parametrize("name", WRITERS)
def test_disk_full_and_then_free_again(name: str, tmp_path: Path) -> None:
    with tiny_disk(tmp_path, "800k") as disk:
        filler = disk / "filler"
        for left in (0, 4096, 8192):  # bytes that are still free
            with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            os.truncate(filler, max(0, filler.stat().st_size - left))
            with pytest.raises(OutputError) as caught:
                WRITERS[name](disk / name)
            assert "no space left on device" in one_line(caught)
            assert os.listdir(disk) == ["filler"]
        filler.unlink()
        WRITERS[name](disk / name)
        assert (disk / name).stat().st_size > 0


@POSIX
@pytest.mark.parametrize("limit", [1_000, 20_000, 80_000])
def test_file_size_limit(limit: int, tmp_path: Path) -> None:
    """The same without root: a child whose files may not grow beyond `limit` bytes."""
    script = textwrap.dedent(f"""
        import resource, signal, sys, tempfile
        from pathlib import Path
        from tests.faults import test_media_faults as here
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            here.write(Path(sys.argv[1]))
        except here.OutputError as error:
            sys.stdout.write(str(error))
    """)
    target = tmp_path / "a.mp4"
    command = [sys.executable, "-c", script, str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # ffmpeg itself is ended by the signal that its parent ignores.
    assert done.stdout.lower().startswith("cannot write a.mp4: ")
    assert re.search("file too large|file size limit exceeded", done.stdout.lower())
    assert "\n" not in done.stdout
    assert not list(tmp_path.iterdir())


@POSIX
@pytest.mark.skipif(not ROOT, reason="mounting needs root")
def test_temporary_folder_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, out = tmp_path / "small", tmp_path / "out"
    small.mkdir()
    out.mkdir()
    with tiny_disk(small, "8k"):
        monkeypatch.setattr(tempfile, "tempdir", str(small))
        with pytest.raises(OutputError, match="no space left on device"):
            write(out / "a.mp4")
        assert not os.listdir(out)
        assert not os.listdir(small)


@pytest.mark.parametrize("name", WRITERS)
def test_unwritable_targets(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / f"folder-{name}"
    folder.mkdir()
    before = sorted(tmp_path.rglob("*"))
    for target in (tmp_path / "none" / name, tmp_path / "file" / name, folder):
        with pytest.raises(OutputError, match=r"^cannot write ") as caught:
            WRITERS[name](target)
        one_line(caught)
    assert sorted(tmp_path.rglob("*")) == before


@POSIX
def test_read_only_folder(tmp_path: Path) -> None:
    def refused() -> None:
        with pytest.raises(OutputError, match="is not writable") as caught:
            write(tmp_path / "a.mp4")
        one_line(caught)
        assert not os.listdir(tmp_path)

    if not ROOT:
        tmp_path.chmod(0o500)
        refused()
        tmp_path.chmod(0o700)
        return
    with tiny_disk(tmp_path, "1m"):
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        refused()


def fake_ffmpeg(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put `script` in ffmpeg's place; $REAL is the true one."""
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\nREAL='{ffmpeg.program()}'\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))


# Only the run that writes the clip is disturbed; its last argument is the temporary file.
CLIP_RUN = 'for last in "$@"; do :; done; last="${last#file:}"; case "$last" in *.part) ;; *) exec "$REAL" "$@";; esac'
DEATHS = {
    "at once": "exit 7",
    "killed at once": "kill -9 $$",
    "killed half-way": f'{CLIP_RUN}; head -c 100000 >/dev/null; head -c 3000 /dev/zero > "$last"; kill -9 $$',
    "claims success, writes nothing": f"{CLIP_RUN}; cat >/dev/null; exit 0",
    "claims success, cuts the file": f'{CLIP_RUN}; "$REAL" "$@"; truncate -s 6000 "$last"; exit 0',
    "no sound": f'{CLIP_RUN}; "$REAL" "$@"; "$REAL" -v error -i "$last" -c copy -an -f mp4 "$last.x"; '
    'mv "$last.x" "$last"',
    "a frame less": f'{CLIP_RUN}; "$REAL" "$@"; "$REAL" -v error -i "$last" -c copy -frames:v 22 -f mp4 "$last.x"; '
    'mv "$last.x" "$last"',
    "complains and fails": "echo '[x @ 0x1] Something broke' >&2; echo 'more' >&2; exit 1",
}


@POSIX
@pytest.mark.parametrize("death", DEATHS)
def test_dying_ffmpeg(death: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools, out = tmp_path / "tools", tmp_path / "out"
    tools.mkdir()
    out.mkdir()
    fake_ffmpeg(tools, DEATHS[death], monkeypatch)
    with pytest.raises(OutputError) as caught:
        write(out / "a.mp4")
    one_line(caught)
    assert not os.listdir(out)


@POSIX
def test_killed_while_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real ffmpeg, killed in the middle of its work."""
    tools, out = tmp_path / "tools", tmp_path / "out"
    tools.mkdir()
    out.mkdir()
    fake_ffmpeg(tools, f'echo $$ > "{tools}/pid"; exec "$REAL" "$@"', monkeypatch)
    clip = noisy_clip(240)

    def kill() -> None:
        while not any(path.stat().st_size > 20_000 for path in out.glob(".*.part")):
            time.sleep(0.005)
        os.kill(int((tools / "pid").read_text()), 9)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with pytest.raises(OutputError, match=r"killed by signal 9"):
        write(out / "a.mp4", clip)
    killer.join()
    assert not os.listdir(out)


@POSIX
def test_missing_and_hanging_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write(out / "good.mp4")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    with pytest.raises(OutputError, match="ffmpeg cannot be started"):
        write(out / "a.mp4")
    with pytest.raises(MediaError, match="ffmpeg cannot be started"):
        probe(out / "good.mp4")
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")
    fake_ffmpeg(tmp_path, "exec sleep 60", monkeypatch)
    started = time.monotonic()
    with pytest.raises(MediaError, match=r"good\.mp4: ffmpeg did not finish within 1 s"):
        read_clip(out / "good.mp4", timeout=0.5 + 0.5)
    assert time.monotonic() - started < 5
    assert sorted(os.listdir(out)) == ["good.json", "good.mp4"]


@POSIX
def test_failed_write_keeps_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write(out / "a.mp4")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    fake_ffmpeg(tmp_path, "head -c 9000 >/dev/null; exit 3", monkeypatch)
    with pytest.raises(OutputError):
        write(out / "a.mp4")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_failed_rename_takes_the_sidecar_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def refuse_clips(source: str, target: Path) -> None:
        if Path(target).suffix == ".mp4":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse_clips)
    with pytest.raises(OutputError, match="input/output error"):
        write(tmp_path / "a.mp4")
    assert not os.listdir(tmp_path)


def test_interrupt_leaves_nothing(tmp_path: Path) -> None:
    class Stop:
        """Frames whose reader presses Ctrl-C."""

        dtype, ndim, shape = np.dtype(np.uint8), 4, CLIP.frames.shape

        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clip(tmp_path / "a.mp4", Stop(), CLIP.samples, 24.0, 16_000, {})
    with contextlib.suppress(KeyboardInterrupt), atomic_file(tmp_path / "b.bin") as part:
        part.write_bytes(b"half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        ffmpeg.run(["-f", "u8", "-i", "pipe:0", "-f", "null", "-"], timeout=9, feed=(_interrupting()))
    assert not os.listdir(tmp_path)


def _interrupting() -> Iterator[bytes]:
    yield bytes(1000)
    raise KeyboardInterrupt


# ---- files that are not what they seem


@pytest.fixture
def server() -> Iterator[tuple[int, list[object]]]:
    """A listening port and the connections it got."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    got: list[object] = []
    done = threading.Event()

    def listen() -> None:
        while not done.is_set():
            with contextlib.suppress(TimeoutError):
                connection, address = listener.accept()
                got.append(address)
                connection.close()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    yield listener.getsockname()[1], got
    done.set()
    thread.join()
    listener.close()


def posing(port: int, secret: Path) -> dict[str, bytes]:
    """Playlists, scripts and references that would read another file or the network if ffmpeg could choose."""
    url = f"http://127.0.0.1:{port}/x.ts"
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    ftyp = b"\0\0\0\x18ftypisom\0\0\0\0isomiso2"
    return {
        "hls url": hls.format(url).encode(),
        "hls file": hls.format(f"file://{secret}").encode(),
        "hls concat": hls.format(f"concat:{secret}|{url}").encode(),
        "concat": f"ffconcat version 1.0\nfile '{secret}'\nfile '{url}'\n".encode(),
        "dash": f'<?xml version="1.0"?><MPD><Period><BaseURL>{url}</BaseURL></Period></MPD>'.encode(),
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n".encode(),
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>'.encode(),
        "hls after ftyp": ftyp + hls.format(url).encode(),
        "hls after gif": b"GIF89a" + hls.format(url).encode(),
        "hls after ebml": b"\x1a\x45\xdf\xa3" + hls.format(url).encode(),
        "hls after riff": b"RIFF\0\0\0\0AVI " + hls.format(url).encode(),
        "rtsp reference": b"RTSPtext" + url.encode(),
        "quicktime reference": b"\0\0\0\x08wide" + b"\0\0\1\0moov\0\0\0\xf8rmra\0\0\0\xf0rmda\0\0\0\xe8rdrf\0\0\0\0url "
        b"\0\0\0\xd0" + url.encode().ljust(0xD0, b"\0"),
        "m3u": f"{secret}\n{url}\n".encode(),
        "empty": b"",
        "words": b"not a video at all\n" * 20,
        "zeros": bytes(5000),
    }


@pytest.mark.parametrize("name", posing(1, Path("x")))
def test_posing_files_reach_nothing(name: str, tmp_path: Path, server: tuple[int, list[object]]) -> None:
    port, got = server
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret line")
    path = tmp_path / "innocent.mp4"
    path.write_bytes(posing(port, secret)[name])
    out = tmp_path / "out"
    out.mkdir()
    calls: list[Callable[[], object]] = [
        lambda: probe(path),
        lambda: read_clip(path),
        lambda: read_audio(path, 16_000),
        lambda: export_gif(out / "a.gif", path),
        lambda: export_trim(out / "b.mp4", path, 0, 1),
    ]
    for call in calls:
        # A gif that ends in nonsense still shows a picture of that nonsense; everything else is refused.
        with contextlib.suppress(MediaError) if name == "hls after gif" else pytest.raises(MediaError) as caught:
            call()
        if caught is not None:
            assert "secret line" not in one_line(caught)
    with contextlib.suppress(MediaError):
        assert read_settings(path) is None
    time.sleep(0.05)
    assert not got
    assert secret.read_text() == "the secret line"
    assert name == "hls after gif" or not os.listdir(out)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="strace is a Linux tool")
def test_external_references_inside_a_real_mp4_are_not_opened(tmp_path: Path) -> None:
    """A QuickTime data reference that names another file: ffmpeg must not open that file."""
    write(tmp_path / "a.mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(data)
    entry = b"\0\0\0\x0curl \0\0\0\x01"  # "the media is in this file"
    where = data.index(entry)
    changed = data[:where] + b"\0\0\0\x0calis\0\0\0\0" + data[where + 12 :]
    (tmp_path / "b.mp4").write_bytes(changed)
    with contextlib.suppress(MediaError):
        read_clip(tmp_path / "b.mp4")
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-e", "trace=openat,connect", "-o", str(trace)]
    options = ffmpeg.reading("mov", tmp_path / "b.mp4", max_pixels=10**6)
    try:
        subprocess.run([*strace, ffmpeg.program(), *options, "-f", "null", "-"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no strace here")
    if not trace.exists() or "b.mp4" not in trace.read_text():
        pytest.skip("strace may not trace here")
    assert "secret.mp4" not in trace.read_text()
    assert "AF_INET" not in trace.read_text()


def test_bounds_of_reading(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match=r"lasts 1\.0 s, more than 0\.5 s; trim it first"):
        read_clip(tmp_path / "a.mp4", max_seconds=0.5)
    with pytest.raises(MediaError, match="GiB of memory"):
        read_clip(tmp_path / "a.mp4", max_bytes=100_000)
    with pytest.raises(MediaError, match="more than 0 s"):
        read_audio(tmp_path / "a.mp4", 16_000, max_seconds=0)
    with pytest.raises(MediaError, match="more than 1 MiB of decoded data"):
        ffmpeg.run(["-f", "lavfi", "-i", "testsrc", "-f", "rawvideo", "pipe:1"], timeout=20, max_output=1 << 20)
    with pytest.raises(MediaError, match=r"none\.mp4 does not exist"):
        read_clip(tmp_path / "none.mp4")
    with pytest.raises(MediaError, match="is a folder"):
        read_clip(tmp_path)


def test_a_video_with_huge_frames_is_refused(tmp_path: Path) -> None:
    """A gif whose header claims 65535x65535 pixels."""
    export_gif(tmp_path / "a.gif", CLIP)
    data = bytearray((tmp_path / "a.gif").read_bytes())
    data[6:10] = b"\xff\xff\xff\xff"
    (tmp_path / "huge.gif").write_bytes(data)
    started = time.monotonic()
    with pytest.raises(MediaError):
        read_clip(tmp_path / "huge.gif")
    assert time.monotonic() - started < 10


def test_a_hundred_mutated_videos() -> None:
    figures = campaign(120, first=100_000)
    assert figures["defects"] == []
    assert figures["slowest_s"] < BOUND * PASSES
    assert figures["clips"] + figures["refused"] == 120
    assert json.dumps(figures)

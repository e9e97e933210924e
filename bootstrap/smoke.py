"""Runs inside a new environment and says whether it works: exit 0, or 1 with the reason on stderr.

    python smoke.py --backend cpu [--files-only] [--note]

`--files-only` looks whether every installed file is there, and nothing else (a second instead of ten). `--note` writes
down which packages there are; from then on one that has vanished is missed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

MODULES = (
    "torch",
    "diffusers",
    "transformers",
    "safetensors.torch",
    "accelerate",
    "peft",
    "einops",
    "numpy",
    "ftfy",
    "PIL.Image",
    "imageio_ffmpeg",
    "pydub",
    "platformdirs",
    "filelock",
    "httpx2",
    "psutil",
    "pydantic",
    "rich.progress",
)


NOTE = Path(sys.prefix) / "mova-packages"


def check_files(backend: str) -> str:
    """Every file that pip noted down is there, and no CUDA package came with a build that has no use for it."""
    found = set()
    for dist in importlib.metadata.distributions():
        name = dist.metadata["Name"]
        if backend == "cpu" and name.lower().startswith("nvidia-"):
            raise RuntimeError(f"{name} was installed, but this is the build without CUDA")
        if dist.files is None:
            raise RuntimeError(f"{name} is incomplete: its list of files is missing")
        for file in dist.files:
            # compiled files come and go; everything else must stay
            if file.suffix != ".pyc" and not Path(str(dist.locate_file(file))).exists():
                raise RuntimeError(f"{name} is incomplete: {file} is missing")
        found.add(name.lower())
    missing = sorted({*NOTE.read_text(encoding="utf-8").split()} - found) if NOTE.is_file() else []
    if missing or not found:
        raise RuntimeError(f"packages have vanished: {', '.join(missing) or 'all of them'}")
    return f"{len(found)} packages complete"


def note_packages() -> None:
    """Write down what is installed now."""
    names = sorted({dist.metadata["Name"].lower() for dist in importlib.metadata.distributions()})
    NOTE.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def check_imports(backend: str) -> str:
    """The libraries load."""
    for name in MODULES:
        importlib.import_module(name)
    return f"{len(MODULES)} libraries load"


def check_matmul(backend: str) -> str:
    """The processor or the card computes what it should; on a card in bfloat16, as generation does."""
    import torch

    device, dtype = torch.device("cpu"), torch.float32
    if backend.startswith(("cu", "rocm")):
        if not torch.cuda.is_available():  # also the name for AMD's cards
            raise RuntimeError("torch sees no graphics card; update its driver, or set MOVA_BACKEND=cpu")
        device, dtype = torch.device("cuda"), torch.bfloat16
    elif torch.backends.mps.is_available():
        device = torch.device("mps")
    # small whole numbers are exact in every format
    left = torch.arange(64, dtype=torch.float32).remainder(4).reshape(8, 8)
    got = (left.to(device, dtype) @ left.T.to(device, dtype)).float().cpu()
    if not torch.equal(got, left @ left.T):
        raise RuntimeError(f"a matrix product on {device} in {dtype} is wrong")
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
    return f"torch {torch.__version__} computes on {name} in {str(dtype).removeprefix('torch.')}"


def check_encode(backend: str) -> str:
    """The bundled ffmpeg writes H.264 and AAC into an mp4."""
    import imageio_ffmpeg

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "smoke.mp4"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin"]
        command += ["-f", "lavfi", "-i", "testsrc=size=64x64:rate=24", "-f", "lavfi", "-i", "sine"]
        command += ["-t", "0.5", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", str(target)]
        done = subprocess.run(command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        if done.returncode or target.stat().st_size < 1000:
            raise RuntimeError(f"ffmpeg cannot encode: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()} encodes"


def main() -> int:
    """Run the checks in order; stop at the first that fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", required=True)
    parser.add_argument("--files-only", action="store_true")
    parser.add_argument("--note", action="store_true")
    options = parser.parse_args()
    checks = [check_files] if options.files_only else [check_files, check_imports, check_matmul, check_encode]
    for check in checks:
        try:
            sys.stdout.write(check(options.backend) + "\n")
            sys.stdout.flush()
        except Exception as error:  # whatever it is, the environment is not good
            sys.stderr.write(f"{check.__name__}: {type(error).__name__}: {error}\n")
            return 1
    if options.note:
        note_packages()
    return 0


if __name__ == "__main__":
    sys.exit(main())

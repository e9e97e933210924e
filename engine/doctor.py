"""What this machine can do, what is wrong, and what to do about it: `python -m engine.doctor [--json]`.

Each check is a function that takes nothing and returns one `Finding`; `CHECKS` lists them in the order of the
report. A check may raise: the report then holds a failed finding with the reason, and the others go on. Nothing
leaves the machine; the home folder is shown as ~, passwords and tokens not at all, so that a report can be posted as it
is.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import platformdirs
import psutil

from engine import health
from engine.finding import Finding, without_secrets
from engine.folders import read_places

ROOT = Path(__file__).resolve().parent.parent
APP = "mova-studio"
GIB = 2**30
LITTLE_MEMORY = 8 * GIB  # below it even small models swap
LITTLE_DISK = 5 * GIB  # a few clips and their temporary files
FFMPEG_SECONDS = 60
NO_LIMIT = 2**60  # cgroup v1 writes a huge number where there is no limit


def check_machine() -> Finding:
    """Processor, system and Python."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    summary = f"{platform.system()} {platform.release()}, {platform.machine()}, {cores} cores"
    details = {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "cores": cores,
        "threads": os.cpu_count(),
    }
    return Finding("machine", "ok", summary, details=details)


def check_python() -> Finding:
    """The interpreter, and whether it is that of the project's own environment."""
    details = {"version": platform.python_version(), "executable": sys.executable}
    summary = f"{platform.python_version()} in {sys.prefix}"
    if Path(sys.prefix).resolve() != (ROOT / ".venv").resolve():
        return Finding("python", "ok", f"{summary} (not the project's own .venv)", details=details)
    return Finding("python", "ok", summary, details=details)


def locked_versions(lock: Path) -> dict[str, set[str]]:
    """Package name -> the versions that a lock file allows (several where Pythons differ)."""
    pins: dict[str, set[str]] = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([A-Za-z0-9][\w.-]*)==([^\s;]+)", line):
            pins.setdefault(match[1].lower().replace("_", "-"), set()).add(match[2])
    return pins


def check_packages() -> Finding:
    """The packages that the engine imports, against the lock."""
    pins = locked_versions(ROOT / "requirements" / "base.txt")
    direct = ["torch", "diffusers", "transformers", "safetensors", "accelerate", "einops", "numpy", "pillow"]
    direct += ["imageio-ffmpeg", "moviepy", "pydub", "pydantic", "rich"]
    versions: dict[str, str | None] = {}
    for name in direct:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    missing = [name for name, version in versions.items() if version is None]
    other = [
        f"{name} {version} (locked: {', '.join(sorted(pins[name]))})"
        for name, version in versions.items()
        if version and name in pins and version.split("+")[0] not in pins[name]
    ]
    repair = "python launch.py setup"
    if missing:
        return Finding("packages", "fail", f"missing: {', '.join(missing)}", repair, {"versions": versions})
    if other:
        return Finding("packages", "warn", f"not as locked: {'; '.join(other)}", repair, {"versions": versions})
    summary = f"torch {versions['torch']}, diffusers {versions['diffusers']}, transformers {versions['transformers']}"
    return Finding("packages", "ok", summary, details={"versions": versions})


def check_device() -> Finding:
    """Where torch computes, checked with a real matrix product."""
    import torch

    if torch.cuda.is_available():
        return _check_cuda()
    if torch.backends.mps.is_available():
        _multiply("mps", torch.float32)
        return Finding("device", "ok", "Apple GPU (Metal)", details={"device": "mps"})
    _multiply("cpu", torch.float32)
    details = {"device": "cpu", "threads": torch.get_num_threads(), "build": torch.__version__}
    if card := _nvidia_card():
        summary = f"processor, although there is an {card}; torch {torch.__version__} cannot use it"
        return Finding("device", "warn", summary, "update the card's driver, then: python launch.py setup", details)
    summary = f"processor, {torch.get_num_threads()} threads; no graphics card for computing"
    todo = "small models and short clips work; the released models need a graphics card"
    return Finding("device", "ok", summary, todo, details)


def _check_cuda() -> Finding:
    import torch

    cards: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        capability = f"{properties.major}.{properties.minor}"
        cards.append({"name": properties.name, "capability": capability, "memory": properties.total_memory})
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    details = {"device": "cuda", "cards": cards, "bf16": bf16, "build": torch.__version__}
    summary = "; ".join(
        f"{c['name']}, {c['memory'] / GIB:.0f} GiB, compute capability {c['capability']}" for c in cards
    )
    try:
        _multiply("cuda", torch.bfloat16 if bf16 else torch.float16)
    except RuntimeError as error:
        summary = f"{summary}; torch {torch.__version__} cannot compute on it: {str(error).splitlines()[0]}"
        return Finding("device", "fail", summary, "update the driver, then: python launch.py setup", details)
    if not bf16:
        return Finding("device", "warn", f"{summary}; no bfloat16, so slower", details=details)
    return Finding("device", "ok", f"{summary}; bfloat16", details=details)


def _multiply(device: str, dtype: Any) -> None:
    import torch

    left = torch.arange(64, dtype=torch.float32).remainder(4).reshape(8, 8)
    got = (left.to(device, dtype) @ left.T.to(device, dtype)).float().cpu()
    if not torch.equal(got, left @ left.T):
        raise RuntimeError(f"a matrix product on {device} is wrong")


def _nvidia_card() -> str:
    """Name of the first NVIDIA card that the driver knows, even if torch cannot use it."""
    program = shutil.which("nvidia-smi")
    if not program:
        return ""
    try:
        command = [program, "--query-gpu=name", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    names = done.stdout.decode("utf-8", errors="replace").strip().splitlines()
    return names[0] if done.returncode == 0 and names else ""


def memory_limit(cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that a container lets us use, or None where there is no limit below the machine's memory."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (cgroup / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < NO_LIMIT:
            return int(text)
    return None


def check_memory() -> Finding:
    """Main memory: of the machine, or of the container where that is less."""
    memory = psutil.virtual_memory()
    limit = memory_limit()
    total = min(memory.total, limit) if limit else memory.total
    details = {"total": total, "available": min(memory.available, total), "limited": total < memory.total}
    summary = f"{total / GIB:.1f} GiB, {details['available'] / GIB:.1f} GiB of it free"
    if details["limited"]:
        summary += f" (limited; the machine has {memory.total / GIB:.1f} GiB)"
    if total < LITTLE_MEMORY:
        return Finding("memory", "warn", summary, "close other programs; choose small sizes and short clips", details)
    return Finding("memory", "ok", summary, details=details)


def folders() -> dict[str, Path]:
    """Where the studio keeps things on this system; none of them needs to exist yet."""
    data = Path(platformdirs.user_data_dir(APP, appauthor=False))
    return {
        "data": data,
        "models": read_places(data).folder,
        "cache": Path(platformdirs.user_cache_dir(APP, appauthor=False)),
        "temporary": Path(tempfile.gettempdir()),
    }


def existing_part(path: Path) -> Path:
    """The path itself, or the closest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _writable(path: Path) -> bool:
    """Whether a file can be made there; asked by doing it, as permissions alone do not tell on every system."""
    try:
        with tempfile.TemporaryFile(dir=existing_part(path)):
            return True
    except OSError:
        return False


def check_folders() -> Finding:
    """The folders for data, models, cache and temporary files can be written."""
    places = folders()
    details = {name: str(path) for name, path in places.items()}
    closed = [str(path) for path in places.values() if not _writable(path)]
    if closed:
        todo = "give yourself the right to write there, or free space"
        return Finding("folders", "fail", f"not writable: {', '.join(closed)}", todo, details)
    return Finding("folders", "ok", f"data and models in {places['data']}, cache in {places['cache']}", details=details)


def check_disk() -> Finding:
    """Free space on the drives of those folders."""
    free = {name: shutil.disk_usage(existing_part(path)).free for name, path in folders().items()}
    scarce = {name: size for name, size in free.items() if size < LITTLE_DISK}
    if scarce:
        summary = "little space: " + ", ".join(f"{name} {size / GIB:.1f} GiB" for name, size in scarce.items())
        return Finding("disk", "warn", summary, "free some space: clips and models need it", free)
    return Finding("disk", "ok", f"{min(free.values()) / GIB:.0f} GiB free", details=free)


def check_ffmpeg() -> Finding:
    """The ffmpeg that comes with imageio-ffmpeg writes a tiny mp4 with H.264 and AAC."""
    import imageio_ffmpeg

    repair = "python launch.py setup"
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        return Finding("ffmpeg", "fail", f"not found: {error}".splitlines()[0], repair)
    details: dict[str, Any] = {"path": program}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "doctor.mp4"
        command = [program, "-v", "error", "-nostdin", "-f", "lavfi", "-i", "testsrc=size=64x64:rate=24"]
        command += ["-f", "lavfi", "-i", "sine", "-t", "0.25", "-c:v", "libx264", "-pix_fmt", "yuv420p"]
        command += ["-c:a", "aac", str(target)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=FFMPEG_SECONDS, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Finding("ffmpeg", "fail", f"{program} does not run: {error}", repair, details)
        if done.returncode or not target.is_file() or target.stat().st_size == 0:
            reason = done.stderr.decode("utf-8", errors="replace").strip().splitlines()[-1:] or ["no output"]
            return Finding("ffmpeg", "fail", f"cannot encode: {reason[0]}", repair, details)
    details["version"] = imageio_ffmpeg.get_ffmpeg_version()
    return Finding("ffmpeg", "ok", f"{details['version']}, encodes H.264 and AAC", details=details)


def check_demo_model() -> Finding:
    """The bundled demonstration model, if this copy of the project has it."""
    folder = ROOT / "assets" / "models" / "demo"
    details = {"path": str(folder)}
    if not (folder / "model_index.json").is_file():
        return Finding("demo model", "ok", "not part of this copy", "name a model folder with --model", details)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Finding("demo model", "ok", f"{size / 2**20:.0f} MiB in {folder}", details={**details, "bytes": size})


def check_plan() -> Finding:
    """How each installed model would run here, with its own default clip."""
    from engine.folders import model_folders
    from engine.memory.backends import words_of
    from engine.memory.choose import plan_clip
    from engine.memory.sizes import Work, guidance_passes
    from engine.profile import read_profile

    plans: dict[str, Any] = {}
    for name, folder in model_folders().items():
        profile = read_profile(folder)
        passes = guidance_passes(profile.guidance, profile.bridge_guidance)
        width, height = profile.sizes[0]
        plan = plan_clip(folder, Work(width, height, profile.frames, profile.fps, passes, profile.steps))
        plans[name] = dict(vars(plan))
        if plan.attention == "native":  # the sentence names only what is not torch's own
            plans[name]["why"] += f"; attention by {words_of(plan.attention)}"
    if not plans:
        return Finding("plan", "ok", "no model to plan for")
    summary = "; ".join(f"{name}: {plan['why']}" for name, plan in plans.items())
    tight = [f"{name}: {plan['advice']}" for name, plan in plans.items() if not plan["fits"]]
    return Finding("plan", "warn" if tight else "ok", summary, "; ".join(tight), plans)


CHECKS: tuple[tuple[str, Callable[[], Finding]], ...] = (
    ("machine", check_machine),
    ("python", check_python),
    ("packages", check_packages),
    ("device", check_device),
    ("memory", check_memory),
    ("folders", check_folders),
    ("disk", check_disk),
    ("ffmpeg", check_ffmpeg),
    ("demo model", check_demo_model),
    ("plan", check_plan),
    ("environment", health.check_environment),
    ("torch build", health.check_build),
    ("models", health.check_models),
    ("language model", health.check_language_model),
    ("port", health.check_port),
    ("proxy", health.check_proxy),
    ("token", health.check_token),
    ("results", health.check_results),
    ("errors", health.check_errors),
)


def examine(checks: Sequence[tuple[str, Callable[[], Finding]]] = CHECKS) -> list[Finding]:
    """Run all checks; one that raises becomes a failed finding."""
    findings = []
    for name, check in checks:
        try:
            findings.append(check())
        except Exception as error:  # a doctor that dies of what it finds helps nobody
            reason = (str(error).splitlines() or [""])[0]
            summary = f"could not be checked: {type(error).__name__}: {reason}"
            findings.append(Finding(name, "fail", summary, "python launch.py setup"))
    return findings


def as_text(findings: Sequence[Finding]) -> str:
    """The report for people: a line a finding, and below it what to do."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:<4}  {finding.name:<{width}}  {finding.summary}")
        if finding.todo:
            lines.append(f"{'':<4}  {'':<{width}}  -> {finding.todo}")
    counts = {status: sum(finding.status == status for finding in findings) for status in ("ok", "warn", "fail")}
    lines.append("")
    lines.append(", ".join(f"{count} {status}" for status, count in counts.items()))
    return str(without_secrets("\n".join(lines)))


def as_json(findings: Sequence[Finding]) -> str:
    """The report for programs: {"status": worst, "findings": [...]}."""
    worst = max((finding.status for finding in findings), key=("ok", "warn", "fail").index)
    report = {"status": worst, "findings": [asdict(finding) for finding in findings]}
    return json.dumps(without_secrets(report), indent=2)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report. Returns 1 if something failed, else 0."""
    parser = argparse.ArgumentParser(prog="launch.py doctor", description="What this machine can do and what is wrong.")
    parser.add_argument("--json", action="store_true", help="for programs, with all figures")
    parser.add_argument("--deep", action="store_true", help="read every byte of the models, too (minutes)")
    options = parser.parse_args(argv)
    deeper = (("models, byte by byte", health.check_models_deeply),) if options.deep else ()
    findings = examine((*CHECKS, *deeper))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a folder's name may not exist in the console's alphabet
    print(as_json(findings) if options.json else as_text(findings))
    return 1 if any(finding.status == "fail" for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())

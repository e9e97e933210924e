"""Reads a .pt file and writes its tensors as safetensors: the only place where a pickle is opened.

Run as a script of its own, in a process of its own, with none of our modules: `python -I unpickle.py IN OUT`. Only
torch's restricted reader is used (weights_only=True), which refuses everything but tensors and plain values; there is
no second way. Exit code 3 and one line on standard error where it refuses. What it writes is checked like any foreign
file.
"""

import sys
import zipfile

MAX_BYTES = 4 * 2**30
MAX_PICKLE = 64 * 2**20
MAX_TENSORS = 20_000


def main(source: str, target: str) -> int:
    """Converts; returns the exit code."""
    fault = check_archive(source)
    if fault:
        return refuse(fault)
    limit_memory()
    import torch
    from safetensors.torch import save_file

    try:
        value = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        return refuse("it holds more than tensors and plain values and was not opened: " + str(error).split("\n")[0])
    if not isinstance(value, dict):
        return refuse(f"it holds a {type(value).__name__}, not a table of tensors")
    notes = {"form": "mova-fsdp"}
    for name in ("lora_state_dict", "state_dict"):
        if isinstance(value.get(name), dict):
            notes["form"] = "mova-low-resource" if name == "lora_state_dict" else "state-dict"
            for setting in ("rank", "alpha"):
                if isinstance(value.get(setting), int | float):
                    notes[setting] = str(float(value[setting]))
            value = value[name]
            break
    tensors = {str(k): v for k, v in value.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        return refuse("there is no tensor in it")
    if len(tensors) > MAX_TENSORS:
        return refuse(f"{len(tensors)} tensors; at most {MAX_TENSORS} are accepted")
    if sum(t.numel() * t.element_size() for t in tensors.values()) > MAX_BYTES:
        return refuse(f"its tensors take over {MAX_BYTES // 2**30} GiB")
    others = [str(k) for k in value if str(k) not in tensors]
    if others:
        notes["others"] = ", ".join(others[:8])[:200]
    try:
        save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, target, notes)
    except Exception as error:
        return refuse(f"its tensors cannot be written: {str(error).splitlines()[0]}")
    return 0


def check_archive(source: str) -> str:
    """What is wrong with the file from outside, or nothing. A bomb is seen before it is unpacked."""
    try:
        with zipfile.ZipFile(source) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError):
        return "not a .pt file of a current torch (a zip archive)"
    if len(entries) > MAX_TENSORS + 100:
        return f"{len(entries)} entries are too many"
    if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
        return "it is compressed, which torch never does"
    if sum(e.file_size for e in entries) > MAX_BYTES:
        return f"it is over {MAX_BYTES // 2**30} GiB"
    pickles = [e for e in entries if e.filename.endswith("data.pkl")]
    if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE:
        return "it does not hold one table of tensors"
    return ""


def limit_memory() -> None:
    """Data of this process is bounded where the system can do it, so that a hostile file hurts only this process."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = 3 * MAX_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def refuse(why: str) -> int:
    print(" ".join(why.split())[:500], file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))

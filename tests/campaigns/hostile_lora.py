"""LoRA files of strangers: headers mutated at random, and files made to harm.

    python -m tests.campaigns.hostile_lora --mutated 10000 --convert 12

Every file must be refused with `LoraError`, or be a LoRA all of whose keys are accounted for. The peak of memory is
that of this process, which loads no torch. A canary in every pickle tells if one was ever opened.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import LoraError
from engine.lora.fit import fit, folder_shapes, needs_tower
from engine.lora.formats import read_lora
from engine.lora.library import Library
from engine.lora.values import check_finite

MODEL = Path(__file__).parents[1] / "data" / "mova-tiny" / "checkpoint"
SHAPES = folder_shapes(MODEL)
BASE = "video_dit.blocks.0.self_attn.q"
Tensors = dict[str, tuple[str, list[int], bytes]]


class Canary:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch '{self.path}'",))


@dataclass
class Tally:
    """What became of the files. escaped: other exceptions than ours, and hostile files that were taken."""

    outcomes: Counter[str] = field(default_factory=Counter)
    escaped: list[str] = field(default_factory=list)

    def judge(self, name: str, path: Path, must_refuse: bool) -> None:
        """Reads one file as the library does, then places it."""
        try:
            file = read_lora(path)
            check_finite(file.header)
            placed = fit(file, SHAPES, "high" if needs_tower(file) else None)
        except LoraError:
            self.outcomes["refused"] += 1
            return
        except Exception as error:  # what a stranger's file must never bring out
            self.escaped.append(f"{name}: {type(error).__name__}: {error}")
            return
        keys = {line.key for line in placed.report if line.status != "missing"}
        self.outcomes["valid"] += 1
        if keys != set(file.header.tensors):
            self.escaped.append(f"{name}: keys not accounted for")
        if must_refuse:
            self.escaped.append(f"{name}: was taken")


def numbers(shape: list[int], value: float = 0.1, dtype: str = "F32") -> tuple[str, list[int], bytes]:
    """A tensor of one value."""
    return dtype, shape, np.full(shape, value, np.float32).tobytes()


def pair(base: str = BASE, rank: int = 4, out: int = 64, inputs: int = 64, value: float = 0.1) -> Tensors:
    return {
        f"{base}.lora_A.weight": numbers([rank, inputs], value),
        f"{base}.lora_B.weight": numbers([out, rank], value),
    }


def header_of(tensors: Tensors, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    position = 0
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + len(raw)]}
        position += len(raw)
    return header


def write(path: Path, header: Any, data: bytes) -> None:
    """A file of any header: an object, text, or bytes."""
    raw = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def body(tensors: Tensors) -> bytes:
    return b"".join(raw for _, _, raw in tensors.values())


def mutated(seed: int) -> bytes:
    """A good file, spoiled in one to four places."""
    rng = random.Random(seed)
    blocks = rng.sample(range(2), rng.randint(1, 2))
    tensors: Tensors = {}
    for block in blocks:
        tensors |= pair(f"video_dit.blocks.{block}.self_attn.{rng.choice('qkvo')}", rng.choice((1, 4, 8)))
    tensors[f"{next(iter(tensors)).rsplit('.', 2)[0]}.alpha"] = numbers([], 4.0)
    header = json.dumps(header_of(tensors, {"ss_output_name": "x", "format": "pt"}))
    raw, data = header.encode(), body(tensors)
    length = len(raw)
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(9)
        at = rng.randrange(max(1, len(raw)))
        if kind == 0:  # a bit
            raw = raw[:at] + bytes([raw[at] ^ (1 << rng.randrange(8))]) + raw[at + 1 :] if raw else raw
        elif kind == 1:  # bytes go
            raw = raw[:at] + raw[at + rng.randint(1, 40) :]
        elif kind == 2:  # bytes come
            raw = raw[:at] + rng.randbytes(rng.randint(1, 20)) + raw[at:]
        elif kind == 3:  # a number becomes another
            digits = [i for i, c in enumerate(raw) if chr(c).isdigit()]
            new = rng.choice((b"-1", b"1e9", b"99999999999999999999", b"0", b"null", b"true", b"1.5", b'"4"', b"[]"))
            if digits:
                i = rng.choice(digits)
                raw = raw[:i] + new + raw[i + 1 :]
        elif kind == 4:  # a stretch twice
            raw = raw[:at] + raw[at : at + 60] + raw[at:]
        elif kind == 5:  # a dtype, a word, a key
            words = (
                (b"F32", b"F64"),
                (b"F32", b"I64"),
                (b"shape", b"shap"),
                (b"lora_A", b"lora_B"),
                (b"weight", b"bias"),
            )
            raw = raw.replace(*rng.choice(words), rng.randint(1, 3))
        elif kind == 6:  # data shorter or longer
            data = (
                data[: rng.randrange(len(data) + 1)] if rng.random() < 0.5 else data + rng.randbytes(rng.randint(1, 64))
            )
        elif kind == 7:  # brackets within brackets
            raw = raw[:at] + b"[" * rng.choice((10, 1000, 100_000)) + raw[at:]
        else:  # values that are no numbers
            place = 4 * rng.randrange(max(1, len(data) // 4))
            data = (
                data[:place]
                + struct.pack("<f", rng.choice((float("nan"), float("inf"), -float("inf"))))
                + data[place + 4 :]
            )
    said = len(raw) if rng.random() < 0.7 else rng.choice((0, 1, length, len(raw) + 1, 2**31, 2**63, 2**64 - 1))
    return struct.pack("<Q", said) + raw + data


def pickles(folder: Path, canary: Path) -> Iterator[Path]:
    """Pickles and zips under a good name: plain, as torch writes them, in one another."""
    harm = Canary(canary)
    for protocol in range(6):
        for n, value in enumerate((harm, {"lora_state_dict": harm}, [1, harm], {f"{BASE}.lora_A.weight": harm})):
            path = folder / f"pickle-{protocol}-{n}.safetensors"
            path.write_bytes(pickle.dumps(value, protocol))
            yield path
    for n, value in enumerate((harm, {"state_dict": harm}, {BASE: harm})):
        for inner in ("archive/data.pkl", "data.pkl", "x/y/data.pkl"):
            path = folder / f"zip-{n}-{inner.count('/')}.safetensors"
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(inner, pickle.dumps(value, 2))
            yield path
    once = io.BytesIO()
    with zipfile.ZipFile(once, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(harm, 2))
    for n in range(3):
        path = folder / f"zip-in-zip-{n}.safetensors"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inner.safetensors", once.getvalue())
        once = io.BytesIO(path.read_bytes())
        yield path
    for n in range(3):  # a header's length in front, a pickle behind
        path = folder / f"disguised-{n}.safetensors"
        raw = pickle.dumps(harm, n + 2)
        path.write_bytes(struct.pack("<Q", len(raw)) + raw)
        yield path


def headers(folder: Path) -> Iterator[Path]:
    """Headers that lie."""
    good, data = header_of(pair()), body(pair())
    a, b = good
    lies: dict[str, tuple[Any, bytes]] = {
        "empty": (b"", b""), "no-tensor": ({}, b""), "list": ([], b""), "text": ('"x"', b""), "null": ("null", b""),
        "deep": ("[" * 200_000, b""), "deep-object": ('{"a":' * 50_000, b""), "half": (json.dumps(good)[:40], data),
        "twice": (json.dumps(good)[:-1] + "," + json.dumps({a: good[a]})[1:], data),
        "latin": (json.dumps(good).replace("video", "vid\u00e9o").encode("latin-1"), data),
        "nul": (json.dumps(good).replace("video_dit", "video\\u0000dit"), data),
        "long-name": ({**good, "x" * 5000: good[b]}, data),
        "nan": (json.dumps(good).replace("[0,", "[NaN,"), data), "more-data": (good, data + b"x"),
        "less-data": (good, data[:-1]), "no-data": (good, b""),
        "metadata-list": ({**good, "__metadata__": [1]}, data),
        "metadata-number": ({**good, "__metadata__": {"a": 1}}, data),
        "many-objects": ({**good, "__metadata__": {"x": "{" * 600_000}}, data),
        "large-header": (b"{" + b" " * (9 * 2**20) + b"}", data),
    }  # fmt: skip
    changes: dict[str, tuple[str, Any]] = {
        "overlap": ("data_offsets", [512, 1536]), "backwards": ("data_offsets", [1024, 0]),
        "same-place": ("data_offsets", [0, 1024]), "outside": ("data_offsets", [10**15, 10**15 + 1024]),
        "negative": ("data_offsets", [-1024, 0]), "float-offset": ("data_offsets", [1024.0, 2048.0]),
        "bool-offset": ("data_offsets", [True, 1024]), "three": ("data_offsets", [1024, 2048, 1]),
        "huge-shape": ("shape", [2**40, 2**40]), "overflow": ("shape", [2**62, 4]), "minus": ("shape", [-64, -4]),
        "no-shape": ("shape", None), "text-shape": ("shape", ["64", "4"]), "float-shape": ("shape", [64.0, 4.0]),
        "nine-dims": ("shape", [1] * 7 + [64, 4]), "dtype": ("dtype", "F128"), "dtype-list": ("dtype", ["F32"]),
        "integers": ("dtype", "I32"), "truth": ("dtype", "BOOL"), "scalar": ("shape", []), "vector": ("shape", [256]),
    }  # fmt: skip
    for name, (key, value) in changes.items():
        lies[name] = ({a: good[a], b: {**good[b], key: value}}, data)
    for name, (header, rest) in lies.items():
        path = folder / f"header-{name}.safetensors"
        write(path, header, rest)
        yield path
    for said in (0, 1, 7, 2**20, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1):
        path = folder / f"length-{said}.safetensors"
        path.write_bytes(struct.pack("<Q", said) + json.dumps(good).encode() + data)
        yield path
    for size in range(1, 12):
        path = folder / f"short-{size}.safetensors"
        path.write_bytes((struct.pack("<Q", 100) + b"{}{}")[:size])
        yield path
    path = folder / "five-gigabytes.safetensors"  # sparse: takes no room
    with path.open("wb") as file:
        file.truncate(5 * 2**30)
    yield path


def contents(folder: Path) -> Iterator[Path]:
    """Good files of bad things: values, sizes, kinds, models."""
    wrong: dict[str, Tensors] = {
        "rank-5000": pair(rank=5000), "rank-4097": pair(rank=4097), "rank-0": pair(rank=0),
        "wide": pair(out=5120, inputs=64),
        "other": pair(inputs=1024),
        "elsewhere": pair("video_dit.blocks.40.self_attn.q"), "flux": pair("transformer.double_blocks.0.img_attn.qkv"),
        "sd": pair("lora_unet_down_blocks_0_attentions_0_proj_in"), "unknown": {"x": numbers([4])},
        "many": {f"video_dit.blocks.{i}.self_attn.q.lora_A.weight": numbers([1, 1]) for i in range(20_001)},
        "text-only": pair("lora_te1_text_model_encoder"), "lonely": dict(list(pair().items())[:1]),
        "ranks-differ": {**pair(), f"{BASE}.lora_B.weight": numbers([64, 5])},
        "two-adapters": {**pair(), f"{BASE}.lora_A.other.weight": numbers([4, 64])},
        "alpha-nan": {**pair(), f"{BASE}.alpha": numbers([], float("nan"))},
        "alpha-minus": {**pair(), f"{BASE}.alpha": numbers([], -4.0)},
        "alpha-huge": {**pair(), f"{BASE}.alpha": numbers([], 1e30)},
        "alpha-many": {**pair(), f"{BASE}.alpha": numbers([3], 1.0)},
        "norm-size": {**pair(), "video_dit.blocks.0.norm3.diff": numbers([65])},
    }  # fmt: skip
    for kind in (
        "hada_w1_a",
        "lokr_w1",
        "dora_scale",
        "oft_blocks",
        "lora_mid.weight",
        "set_weight",
        "on_input",
        "vera_lambda_b",
    ):
        wrong[f"kind-{kind}"] = {f"lora_unet_blocks_0_self_attn_q.{kind}": numbers([4, 64])}
    for n, value in enumerate((float("nan"), float("inf"), -float("inf"))):
        for k, name in enumerate(("lora_A", "lora_B")):
            tensors = pair()
            spoiled = np.full((4, 64) if k == 0 else (64, 4), 0.1, np.float32)
            spoiled.flat[-1 - n] = value
            tensors[f"{BASE}.{name}.weight"] = ("F32", list(spoiled.shape), spoiled.tobytes())
            wrong[f"value-{n}-{name}"] = tensors
    for part in ("video_dit", "video_dit_2", "audio_dit", "dual_tower_bridge"):
        for size in (24, 40, 48, 63, 65, 96, 128, 1536, 5120):
            wrong[f"size-{part}-{size}"] = pair(f"{part}.blocks.0.self_attn.q", inputs=size, out=size)
    for name, tensors in wrong.items():
        path = folder / f"content-{name}.safetensors"
        write(path, header_of(tensors), body(tensors))
        yield path


def others(folder: Path) -> Iterator[Path]:
    """What is no LoRA at all, folders with hostile settings, and things that are no files."""
    signs = {
        "gguf": b"GGUF\x03\0\0\0", "png": b"\x89PNG\r\n\x1a\n", "elf": b"\x7fELF\x02\x01\x01\0", "zeros": bytes(8),
        "html": b"<!DOCTYPE html>", "ones": b"\xff" * 8, "script": b"#!/bin/sh\ntouch x", "json": b'{"a": 1}',
        "onnx": b"\x08\x07\x12\x07pytorch",
    }  # fmt: skip
    for name, sign in signs.items():
        path = folder / f"other-{name}.safetensors"
        path.write_bytes(sign + random.Random(name).randbytes(3000))
        yield path
    configs: dict[str, Any] = {
        "regex": {"lora_alpha": 4, "alpha_pattern": {"(a+)+$": 3}}, "kind": {"peft_type": "LOHA"},
        "dora": {"use_dora": True},
        "alpha": {"lora_alpha": "many"}, "alpha-huge": {"lora_alpha": 1e308}, "bias": {"bias": "all"}, "list": [1, 2],
        "patterns": {"alpha_pattern": [1]}, "bool": {"lora_alpha": True},
    }  # fmt: skip
    for name, config in configs.items():
        place = folder / f"peft-{name}"
        place.mkdir()
        tensors = pair("base_model.model.blocks.0.self_attn.q")
        write(place / "adapter_model.safetensors", header_of(tensors), body(tensors))
        (place / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        yield place
    (folder / "peft-deep").mkdir()
    tensors = pair("base_model.model.blocks.0.self_attn.q")
    write(folder / "peft-deep" / "adapter_model.safetensors", header_of(tensors), body(tensors))
    (folder / "peft-deep" / "adapter_config.json").write_text("[" * 100_000, encoding="utf-8")
    yield folder / "peft-deep"
    (folder / "empty-folder").mkdir()
    yield folder / "empty-folder"
    (folder / "nothing.safetensors").mkdir()
    yield folder / "nothing.safetensors"
    yield folder / "missing.safetensors"
    yield folder / "nul\0name.safetensors"
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.safetensors")
        yield folder / "pipe.safetensors"
        yield Path("/dev/zero")
    for n, text in enumerate(
        ("[", "[" * 100_000, '{"transformer.lora_alpha": "x"}', '{"lora_alpha": 1e99}', "null", "x" * 2**21)
    ):
        path = folder / f"settings-{n}.safetensors"
        tensors = pair("transformer.blocks.0.attn1.to_q")
        write(path, header_of(tensors, {"lora_adapter_metadata": text}), body(tensors))
        yield path


def hostile(folder: Path, canary: Path) -> list[Path]:
    """All of them, over 200."""
    return [*pickles(folder, canary), *headers(folder), *contents(folder), *others(folder)]


def archives(folder: Path, canary: Path) -> Iterator[Path]:
    """.pt files that must not be opened beyond tensors; for the converter. Needs torch."""
    import torch

    harm = Canary(canary)
    tensors = {f"{BASE}.lora_A": torch.ones(4, 64), f"{BASE}.lora_B": torch.ones(64, 4)}
    values = (
        {"lora_state_dict": tensors, "rank": harm}, harm, {**tensors, "x": harm}, [harm], {"lora_state_dict": {}},
        tensors[f"{BASE}.lora_A"], {"state_dict": 3}, {**tensors, "obj": Tally()},
    )  # fmt: skip
    for n, value in enumerate(values):
        path = folder / f"harm-{n}.pt"
        torch.save(value, path)
        yield path
    (folder / "old.pt").write_bytes(pickle.dumps({"a": harm}, 2))
    yield folder / "old.pt"
    with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(harm, 2))
        archive.writestr("archive/data/0", bytes(200 * 2**20))
    yield folder / "bomb.pt"
    (folder / "noise.pt").write_bytes(random.Random(1).randbytes(10_000))
    yield folder / "noise.pt"
    spoiled = {k: v.clone() for k, v in tensors.items()}
    spoiled[f"{BASE}.lora_A"][0, 0] = float("nan")
    torch.save({"lora_state_dict": spoiled, "rank": 4, "alpha": 4.0}, folder / "nan.pt")
    yield folder / "nan.pt"


def try_library(folder: Path) -> list[str]:
    """A library made of all of them must list them with their faults and do nothing else."""
    try:
        entries = Library(folder).entries()
    except Exception as error:  # one bad file must not hide the others
        return [f"library: {type(error).__name__}: {error}"]
    return [
        f"library: {e.path.name} has no fault" for e in entries if e.fault is None and e.path.name.startswith("pickle")
    ]


def peak_bytes() -> int:
    """Most memory that this process ever had; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if status.is_file():  # the other source counts the parent's memory from before this program was loaded
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutated", type=int, default=10_000)
    parser.add_argument("--convert", type=int, default=12, help="hostile .pt files that go through the converter")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        canary = folder / "canary"
        first, second = Tally(), Tally()
        for seed in range(args.mutated):
            (folder / "mutated.safetensors").write_bytes(mutated(seed))
            first.judge(f"mutated {seed}", folder / "mutated.safetensors", must_refuse=False)
        (folder / "files").mkdir()
        files = hostile(folder / "files", canary)
        for path in files:
            second.judge(path.name, path, must_refuse=True)
        escaped = first.escaped + second.escaped + try_library(folder / "files")
        peak = peak_bytes() / 2**20
        loaded = "torch" in sys.modules
        converted = convert_all(folder, canary, args.convert) if args.convert else []
        print(f"{args.mutated} mutated headers: {dict(first.outcomes)}")
        print(f"{len(files)} hostile files: {dict(second.outcomes)}")
        print(f"{args.convert} hostile .pt files through the converter: {len(converted)} escaped")
        print(f"peak {peak:.0f} MiB, torch loaded: {loaded}, canary {'FIRED' if canary.exists() else 'silent'}")
        escaped += (
            converted + (["the canary fired"] if canary.exists() else []) + (["torch was loaded"] if loaded else [])
        )
        escaped += [f"peak of {peak:.0f} MiB is over 300"] if peak > 300 else []
        print("\n".join(escaped[:20]) or f"nothing escaped, {time.monotonic() - began:.0f} s")
    return 1 if escaped else 0


def convert_all(folder: Path, canary: Path, count: int) -> list[str]:
    """Files that the converter took, or on which it failed with another error than ours."""
    from engine.lora.convert import convert

    (folder / "archives").mkdir(exist_ok=True)
    escaped = []
    for path in list(archives(folder / "archives", canary))[:count]:
        try:
            done = convert(path, folder / "archives" / f"{path.stem}.out.safetensors")
            escaped.append(f"{path.name} was converted to {done.path.name}")
        except LoraError:
            continue
        except Exception as error:  # as above
            escaped.append(f"{path.name}: {type(error).__name__}: {error}")
    return escaped


if __name__ == "__main__":
    sys.exit(main())

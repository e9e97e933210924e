"""LoRAs for tests: one canonical LoRA, drawn at random, written the way each maker writes it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

PREFIX = {"high": "video_dit", "low": "video_dit_2", "audio": "audio_dit", "bridge": "dual_tower_bridge"}
BLOCK_LINEAR = (
    *(f"{a}.{m}" for a in ("self_attn", "cross_attn") for m in "qkvo"),
    "ffn.0",
    "ffn.2",
)
TO_DIFFUSERS = {
    "self_attn": "attn1", "cross_attn": "attn2", ".q": ".to_q", ".k": ".to_k", ".v": ".to_v", ".o": ".to_out.0",
    "ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2", "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj", "head.head": "proj_out",
}  # fmt: skip
Shapes = dict[str, dict[str, tuple[int, ...]]]


@dataclass
class Canonical:
    """module -> (down, up, alpha or None), for one tower; and what alpha stands in all modules, if one does."""

    part: str
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor, float | None]]
    deltas: dict[str, torch.Tensor] = field(default_factory=dict)

    def scale(self, module: str) -> float:
        down, _, alpha = self.pairs[module]
        return 1.0 if not alpha else alpha / down.shape[0]


def draw(shapes: Shapes, seed: int, part: str = "high", same_alpha: bool = False) -> Canonical:
    """A random LoRA: its modules, blocks, ranks, alphas (there, zero or not) and dtype."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    names = [n[: -len(".weight")] for n, s in shapes[part].items() if n.endswith(".weight") and len(s) == 2]
    blocks = sorted({n.split(".")[1] for n in names if n.startswith("blocks.")}, key=int)
    blocks = rng.sample(blocks, rng.randint(1, len(blocks)))
    kinds = rng.sample(BLOCK_LINEAR, rng.randint(1, len(BLOCK_LINEAR)))
    chosen = [n for n in names if n.startswith("blocks.") and n.split(".")[1] in blocks and n.split(".", 2)[2] in kinds]
    chosen += [n for n in names if not n.startswith("blocks.") and rng.random() < 0.3]
    dtype = rng.choice((torch.float32, torch.float16, torch.bfloat16, torch.float64))
    kind = rng.choice(("absent", "zero", "there"))
    shared = float(rng.choice((1, 4, 7.5, 16, 32)))
    pairs = {}
    rank = rng.randint(1, 12)
    for name in chosen:
        out, inputs = shapes[part][f"{name}.weight"]
        r = rank if rng.random() < 0.7 else rng.randint(1, 12)
        down = (torch.randn(r, inputs, generator=generator) * 0.2).to(dtype)
        up = (torch.randn(out, r, generator=generator) * 0.2).to(dtype)
        alpha = {"absent": None, "zero": 0.0, "there": shared if same_alpha else float(rng.choice((1, 4, 8, 16)))}[kind]
        pairs[name] = (down, up, alpha)
    return Canonical(part, pairs)


def _factors(lora: Canonical, name: Callable[[str], str], down: str, up: str, alphas: bool) -> dict[str, torch.Tensor]:
    tensors = {}
    for module, (a, b, alpha) in lora.pairs.items():
        tensors[name(module) + down], tensors[name(module) + up] = a, b
        if alphas and alpha is not None:
            tensors[f"{name(module)}.alpha"] = torch.tensor(alpha)
    return tensors


def _to_rank(lora: Canonical) -> Canonical:
    """The same LoRA with its scale within `up`, for makers that write no alpha."""
    return Canonical(
        lora.part,
        {m: (a.double(), b.double() * lora.scale(m), None) for m, (a, b, _) in lora.pairs.items()},
        lora.deltas,
    )


def native(lora: Canonical, path: Path) -> None:
    """ComfyUI, diffusion-pipe, ai-toolkit: no alpha."""
    save_file(
        _factors(_to_rank(lora), lambda m: f"diffusion_model.{m}", ".lora_A.weight", ".lora_B.weight", False), path
    )


def kohya(lora: Canonical, path: Path) -> None:
    def name(module: str) -> str:
        return "lora_unet_" + module.replace(".", "_")

    metadata = {"ss_network_module": "networks.lora_wan", "ss_output_name": "kohya", "ss_base_model_version": "wan2.2"}
    save_file(_factors(lora, name, ".lora_down.weight", ".lora_up.weight", True), path, metadata)


def diffusers_name(module: str) -> str:
    for ours, theirs in TO_DIFFUSERS.items():
        if ours.startswith("."):
            module = module[: -len(ours)] + theirs if module.endswith(ours) else module
        else:
            module = module.replace(ours, theirs)
    return module


def diffusers(lora: Canonical, path: Path, component: str = "transformer") -> None:
    """Alpha in the metadata, as `save_lora_adapter` packs it."""
    alphas = {diffusers_name(m): alpha for m, (_, _, alpha) in lora.pairs.items() if alpha is not None}
    settings: dict[str, object] = {f"{component}.r": 4, f"{component}.use_rslora": False}
    metadata = {"format": "pt"}
    if alphas:
        common = next(iter(alphas.values()))
        settings[f"{component}.lora_alpha"] = common
        settings[f"{component}.alpha_pattern"] = {m: a for m, a in alphas.items() if a != common}
        metadata["lora_adapter_metadata"] = json.dumps(settings)
    tensors = _factors(lora, lambda m: f"{component}.{diffusers_name(m)}", ".lora_A.weight", ".lora_B.weight", False)
    save_file(tensors, path, metadata)


def peft_folder(lora: Canonical, path: Path) -> None:
    """`path` becomes a folder."""
    path.mkdir()
    alphas = {m: alpha for m, (_, _, alpha) in lora.pairs.items() if alpha is not None}
    common = next(iter(alphas.values()), 1.0)
    config = {"peft_type": "LORA", "r": 4, "bias": "none", "use_rslora": False, "use_dora": False}
    if alphas:
        config |= {"lora_alpha": common, "alpha_pattern": {m: a for m, a in alphas.items() if a != common}}
    (path / "adapter_config.json").write_text(json.dumps(config))
    tensors = _factors(lora, lambda m: f"base_model.model.{m}", ".lora_A.weight", ".lora_B.weight", False)
    save_file(tensors, path / "adapter_model.safetensors")


def diffsynth(lora: Canonical, path: Path) -> None:
    save_file(_factors(_to_rank(lora), lambda m: m, ".lora_A.default.weight", ".lora_B.default.weight", False), path)


def diffsynth_pipe(lora: Canonical, path: Path) -> None:
    tensors = _factors(
        _to_rank(lora), lambda m: f"pipe.dit.{m}", ".lora_A.default.weight", ".lora_B.default.weight", False
    )
    save_file(tensors, path)


def lightx2v(lora: Canonical, path: Path) -> None:
    """Native, lora_down/lora_up, differences, and image attention that has no home."""
    tensors = _factors(lora, lambda m: f"diffusion_model.{m}", ".lora_down.weight", ".lora_up.weight", True)
    endings = {"weight": "diff", "bias": "diff_b", "modulation": "diff_m"}
    for parameter, value in lora.deltas.items():
        module, _, kind = parameter.rpartition(".")
        tensors[f"diffusion_model.{module}.{endings[kind]}"] = value
    first = next(iter(lora.pairs.values()))[0]
    tensors["diffusion_model.blocks.0.cross_attn.k_img.lora_down.weight"] = first.clone()
    tensors["diffusion_model.blocks.0.cross_attn.k_img.lora_up.weight"] = first.t().clone().contiguous()
    tensors["diffusion_model.blocks.0.cross_attn.k_img.diff_b"] = torch.zeros(8)
    save_file(tensors, path)


def mova(lora: Canonical, path: Path) -> None:
    """Our own form: the tower in every name."""
    save_file(_factors(lora, lambda m: f"{PREFIX[lora.part]}.{m}", ".lora_A.weight", ".lora_B.weight", True), path)


def mova_low_resource(lora: Canonical, path: Path) -> None:
    """MOVA's single-card trainer: one alpha for all, right in the file; one rank."""
    state = _factors(lora, lambda m: f"{PREFIX[lora.part]}.{m}", ".lora_A", ".lora_B", False)
    alphas = [alpha for _, _, alpha in lora.pairs.values()]
    value: dict[str, object] = {"lora_state_dict": state, "rank": 4}
    if alphas[0] is not None:
        value["alpha"] = alphas[0]
    torch.save(value, path)


def mova_fsdp(lora: Canonical, path: Path) -> None:
    """MOVA's FSDP trainer: its config beside the file always says 16 and 16."""
    torch.save(_factors(lora, lambda m: f"{PREFIX[lora.part]}.{m}", ".lora_A.weight", ".lora_B.weight", False), path)
    torch.save({"rank": 16, "alpha": 16}, path.with_name("lora_config.pt"))

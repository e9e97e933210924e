"""What the name of a tensor says: which module it belongs to, in which tower, and in which role.

Native Wan names are the canonical ones, since MOVA's towers use them. Every other naming is turned into them here, as
text alone: no model is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.errors import LoraError

# Parts of a model. "first" and "second" are experts only if both are named in one file.
HIGH, LOW, AUDIO, BRIDGE = "high", "low", "audio", "bridge"
FIRST, SECOND = "first", "second"
PART_FOLDERS = {HIGH: "video_dit", LOW: "video_dit_2", AUDIO: "audio_dit", BRIDGE: "dual_tower_bridge"}

DOWN, UP, ALPHA, WEIGHT, BIAS, MODULATION = "down", "up", "alpha", "diff", "diff_b", "diff_m"


@dataclass(frozen=True)
class Key:
    """A name, understood.

    Attributes:
        module: native name, for instance "blocks.0.self_attn.q".
        role: DOWN, UP, ALPHA, WEIGHT, BIAS or MODULATION.
        part: HIGH, LOW, AUDIO, BRIDGE, FIRST, SECOND, or None where the name does not say.
        style: which row of the documentation's table it looks like.
        source: the module's name as the file spells it, prefixes removed.
    """

    module: str
    role: str
    part: str | None
    style: str
    source: str


OTHER_KINDS = (  # what is not LoRA, by the marks in its names
    (re.compile(r"hada_(w|t)\d"), "LoHa"),
    (re.compile(r"lokr_"), "LoKr"),
    (re.compile(r"dora_scale|lora_magnitude_vector"), "DoRA"),
    (re.compile(r"(^|\.)b?oft_(blocks|diag|[RrSs]\b)|\.oft_"), "OFT"),
    (re.compile(r"lora_mid\b"), "LoCon with a middle factor (Tucker)"),
    (re.compile(r"\b(a1|a2|b1|b2)\.weight$"), "GLoRA"),
    (re.compile(r"ia3_l\b|\.on_input$"), "IA3"),
    (re.compile(r"vera_lambda"), "VeRA"),
    (re.compile(r"lora_embedding_[AB]"), "LoRA of an embedding"),
    (re.compile(r"lora_[AB](\.[\w-]+)?\.bias$"), "LoRA with a bias of its own"),
    (re.compile(r"\.(set_weight|reshape_weight)$"), "replaced or reshaped weights"),
    (re.compile(r"\.w_norm$|\.b_norm$"), "LyCORIS norms"),
)

_NAMED = r"(?:(?:\.(?P<adapter>[\w-]+))?\.weight)?$"
_ROLES = (
    (DOWN, re.compile(r"\.(?:lora_A|lora_down|lora\.down|lora_linear_layer\.down)" + _NAMED)),
    (UP, re.compile(r"\.(?:lora_B|lora_up|lora\.up|lora_linear_layer\.up)" + _NAMED)),
    (ALPHA, re.compile(r"\.alpha$")),
    (BIAS, re.compile(r"\.diff_b$")),
    (MODULATION, re.compile(r"\.diff_m$")),
    (WEIGHT, re.compile(r"\.diff$")),
)

_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_PREFIXES = (  # (dotted or underscored prefix, part it names, style); longest first where one begins another
    ("base_model.model.", None, "peft"),
    ("model.diffusion_model.", None, "native"),
    ("diffusion_model.", None, "native"),
    ("pipe.dit2.", SECOND, "diffsynth"),
    ("pipe.dit.", FIRST, "diffsynth"),
    ("transformer_2.", SECOND, "diffusers"),
    ("transformer.", FIRST, "diffusers"),
    ("video_dit_2.", LOW, "mova"),
    ("video_dit.", HIGH, "mova"),
    ("audio_dit.", AUDIO, "mova"),
    ("dual_tower_bridge.", BRIDGE, "mova"),
    ("lora_unet_", None, "kohya"),
    ("lora_transformer_2_", SECOND, "kohya"),
    ("lora_transformer_", FIRST, "kohya"),
)
_FLAT_PARTS = (
    ("video_dit_2_", LOW), ("video_dit_", HIGH), ("audio_dit_", AUDIO), ("dual_tower_bridge_", BRIDGE),
)  # fmt: skip
TEXT_ENCODERS = re.compile(r"^(lora_te\d?_|text_encoder(_\d)?\.|te\d?\.|conditioner\.|cond_stage_model\.)")

_BLOCK_NATIVE = (
    *(f"{a}.{m}" for a in ("self_attn", "cross_attn") for m in ("q", "k", "v", "o", "norm_q", "norm_k")),
    "cross_attn.k_img", "cross_attn.v_img", "cross_attn.norm_k_img", "norm3", "ffn.0", "ffn.2", "modulation",
)  # fmt: skip
_BLOCK_DIFFUSERS = {
    **{
        f"attn{n}.{theirs}": f"{ours}.{m}"
        for n, ours in ((1, "self_attn"), (2, "cross_attn"))
        for theirs, m in (
            ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"), ("norm_q", "norm_q"), ("norm_k", "norm_k"),
        )
    },
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "attn2.norm_added_k": "cross_attn.norm_k_img",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "norm2": "norm3",
    "norm3": "norm2",
}  # fmt: skip
_TOP_NATIVE = (
    "patch_embedding", "text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2",
    "time_projection.1", "head.head", "head",
)  # fmt: skip
_TOP_DIFFUSERS = {
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "proj_out": "head.head",
}
_BRIDGE_MODULES = (*(f"inner.{m}" for m in ("q", "k", "v", "o", "norm_q", "norm_k")), "y_norm")
_DIRECTIONS = ("audio_to_video_conditioners", "video_to_audio_conditioners")

_FLAT_BLOCK = {name.replace(".", "_"): name for name in (*_BLOCK_NATIVE, *_BLOCK_DIFFUSERS)}
_FLAT_TOP = {name.replace(".", "_"): name for name in (*_TOP_NATIVE, *_TOP_DIFFUSERS)}
_FLAT_BRIDGE = {name.replace(".", "_"): name for name in _BRIDGE_MODULES}
_DIFFUSERS_MARK = re.compile(r"attn[12][._]|ffn[._]net[._]|condition_embedder[._]|(^|[._])proj_out\b|\bnorm2\b")
NO_HOME = re.compile(r"(_img$|^img_emb(\.|$)|image_embedder)")


def is_diffusers(names: list[str]) -> bool:
    """Whether the names of a file are those of diffusers' Wan, in which norm2 and norm3 stand the other way round."""
    return any(_DIFFUSERS_MARK.search(name) for name in names)


def read_key(name: str, diffusers: bool) -> Key | None:
    """What a tensor's name says; None for a text encoder's, which has no home here.

    Args:
        name: as in the file.
        diffusers: the file follows diffusers' names.

    Raises:
        LoraError: the name is of another kind of adapter (LoHa, LoKr, ...), or of no kind that is known.
    """
    if TEXT_ENCODERS.match(name):
        return None
    for pattern, kind in OTHER_KINDS:
        if pattern.search(name):
            raise LoraError(f"{kind} is not supported, only LoRA (tensor {name[:120]!r})")
    for role, pattern in _ROLES:
        found = pattern.search(name)
        if found:
            module, part, style = _strip(name[: found.start()])
            if style == "" and found.groupdict().get("adapter"):
                style = "diffsynth"
            return _named(module, role, part, style, diffusers)
    raise LoraError(f"tensor {name[:120]!r} is of no known kind; nothing was loaded")


def _strip(module: str) -> tuple[str, str | None, str]:
    """Removes the makers' prefixes -> (rest, part, style)."""
    module, part, style = _WRAPPERS.sub("", module), None, ""
    while True:
        for prefix, names_part, names_style in _PREFIXES:
            if module.startswith(prefix):
                module, part, style = module[len(prefix) :], names_part or part, style or names_style
                break
        else:
            return module, part, style


def _named(source: str, role: str, part: str | None, style: str, diffusers: bool) -> Key:
    module = source
    if style == "kohya":
        for prefix, names_part in _FLAT_PARTS:
            if module.startswith(prefix):
                module, part = module[len(prefix) :], names_part
                break
        module = _dotted(module)
    if diffusers:
        module = _native(module)
        style = style or "diffusers"
    if module.startswith(_DIRECTIONS):
        part = BRIDGE
    return Key(module, role, part, style or "plain", source)


def _dotted(flat: str) -> str:
    """ "blocks_0_self_attn_q" -> "blocks.0.self_attn.q"; an unknown name is left as it is."""
    block = re.match(r"blocks_(\d{1,4})_(.+)$", flat)
    if block:
        return f"blocks.{block[1]}.{_FLAT_BLOCK.get(block[2], block[2])}"
    bridge = re.match(rf"({'|'.join(_DIRECTIONS)})_(\d{{1,4}})_(.+)$", flat)
    if bridge:
        return f"{bridge[1]}.{bridge[2]}.{_FLAT_BRIDGE.get(bridge[3], bridge[3])}"
    return _FLAT_TOP.get(flat, flat)


def _native(module: str) -> str:
    """A diffusers name -> the native one."""
    block = re.match(r"blocks\.(\d{1,4})\.(.+)$", module)
    if block:
        return f"blocks.{block[1]}.{_BLOCK_DIFFUSERS.get(block[2], block[2])}"
    return _TOP_DIFFUSERS.get(module, module)


_NOISE = re.compile(r"(high|low)[\W_]*noise")
_WORD = re.compile(r"(?<![a-z])(high|low)(?![a-z])(?![\W_]*(rank|res|vram|ram|poly|key|fps|quality|def|step|memory))")


def tower_from_file_name(stem: str) -> str | None:
    """ "high", "low" or "sound" where a file's name says so; None where it says nothing, or several."""
    text = stem.lower()
    said = {m[1] for m in _NOISE.finditer(text)} or {m[1] for m in _WORD.finditer(text)}
    if re.search(r"audio[\W_]*(dit|tower)", text):
        said.add("sound")
    return said.pop() if len(said) == 1 else None

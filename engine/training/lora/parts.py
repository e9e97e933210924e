"""A joint block for training in little memory: what is computed token by token is computed for a part at a time.

    front   parts of the picture: the bridge's look at the sound, norm, and queries, keys, values
    heads   attention, some heads at a time; its gradient is written over queries, keys and values
    back    parts of the picture: output, look at the text, feed-forward

Of front and back only their inputs are kept, and each part is computed again for its gradient. The sums are those of
the block's own forward; parts only change their order, so that results agree within rounding. A picture's state, its
sum with the bridge, queries, keys, values, what attention makes, and three gradients are all that is whole at once.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine.attention import attention
from engine.models.bridge import Conditioner
from engine.models.dual_tower import JointBlock, Scale
from engine.models.rope import Table, rotate_halves, rotate_pairs
from engine.models.towers import Attention, TowerBlock

TOKENS = 1024  # of a part: its temporaries are a few hundred megabytes at full size
HEADS = 8  # at a time

Piece = Callable[[slice, Sequence[Tensor], Sequence[Tensor]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class _Job:
    """A function of (which tokens, token by token tensors, others), and how many of either come first.

    Attributes:
        blank: only the gradient is wanted; the result, of the first tensor's form, is left empty.
    """

    function: Piece
    tokens: int
    others: int
    blank: bool


class _Parts(torch.autograd.Function):
    """Applies a job to one part of the tokens after the other, and again for the gradient."""

    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: Tensor) -> tuple[Tensor, ...]:
        tokens, others = tensors[: job.tokens], tensors[job.tokens : job.tokens + job.others]
        ctx.set_materialize_grads(False)
        ctx.job, ctx.surroundings = job, contextvars.copy_context()
        ctx.autocast = autocast_of(tokens[0])
        ctx.save_for_backward(*tensors)
        if job.blank:
            return (tokens[0].new_empty(1).expand(tokens[0].shape),)
        length = tokens[0].shape[1]
        whole: list[Tensor] = []
        for part in _slices(tokens[0]):
            made = job.function(part, [t[:, part] for t in tokens], others)
            whole = whole or [m.new_empty(m.shape[0], length, *m.shape[2:]) for m in made]
            for all_, some in zip(whole, made, strict=True):
                all_[:, part] = some
        return tuple(whole)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        job: _Job = ctx.job
        saved, needs = ctx.saved_tensors, ctx.needs_input_grad[1:]
        count = job.tokens + job.others
        factors = saved[count:]
        found: list[Tensor | None] = [torch.zeros_like(t) if n else None for t, n in zip(saved, needs, strict=True)]
        # Sums over parts are taken in float32.
        sums = [None if f is None or i < job.tokens else f.float() for i, f in enumerate(found)]
        for part in _slices(saved[0]):
            cut = [t[:, part] if i < job.tokens else t for i, t in enumerate(saved[:count])]
            leaves = [t.detach().requires_grad_(n) for t, n in zip(cut, needs[:count], strict=True)]
            with torch.enable_grad(), torch.autocast(**ctx.autocast):
                inner = [t.view_as(t) for t in leaves]  # autocast keeps its casts of leaves
                made = ctx.surroundings.run(job.function, part, inner[: job.tokens], inner[job.tokens :])
                del inner
            pairs = [(m, g[:, part]) for m, g in zip(made, grads, strict=True) if g is not None and m.requires_grad]
            del made
            wanted = [i for i, t in enumerate((*leaves, *factors)) if needs[i] and t.requires_grad]
            if not pairs or not wanted:
                continue
            ends, starts = [m for m, _ in pairs], [(*leaves, *factors)[i] for i in wanted]
            slopes = torch.autograd.grad(ends, starts, [g for _, g in pairs], allow_unused=True)
            del pairs, ends, starts, leaves
            for i, slope in zip(wanted, slopes, strict=True):
                whole, total = found[i], sums[i]
                if slope is not None and total is not None:
                    total += slope
                elif slope is not None and whole is not None:
                    whole[:, part] = slope
            del slopes
        return None, *(f if s is None or f is None else s.to(f.dtype) for f, s in zip(found, sums, strict=True))


def in_parts(
    function: Piece, tokens: Sequence[Tensor], others: Sequence[Tensor], modules: Sequence[nn.Module], blank: bool
) -> tuple[Tensor, ...]:
    """`function` of all tokens; keeps what it is given for the gradient, and nothing of its own.

    Args:
        tokens: tensors (B, L, ...), cut along L. others: tensors that every part needs whole.
        modules: those that `function` uses; what learns in them gets its gradient.
        blank: see `_Job`.
    """
    factors = [p for module in modules for p in module.parameters() if p.requires_grad]
    made: tuple[Tensor, ...] = _Parts.apply(_Job(function, len(tokens), len(others), blank), *tokens, *others, *factors)
    return made


class _Heads(torch.autograd.Function):
    """Attention, some heads at a time. The gradient takes the places of query, key and value, which nobody else has."""

    @staticmethod
    def forward(ctx: Any, again: bool, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        ctx.whole, ctx.surroundings = [t.detach() for t in (query, key, value)], contextvars.copy_context()
        ctx.autocast = autocast_of(query)
        ctx.graphs = []
        made = []
        for heads in _groups(query):
            three = [t[:, :, heads].detach().requires_grad_(not again) for t in ctx.whole]
            with torch.set_grad_enabled(not again):
                out = attention(*three)
            ctx.graphs.append(None if again else (three, out))
            made.append(out.detach())
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        graphs, ctx.graphs = ctx.graphs, []
        for n, heads in enumerate(_groups(ctx.whole[0])):
            if graphs[n] is None:
                three = [t[:, :, heads].detach().requires_grad_() for t in ctx.whole]
                with torch.enable_grad(), torch.autocast(**ctx.autocast):
                    out = ctx.surroundings.run(attention, *three)
            else:
                three, out = graphs[n]
            slopes = torch.autograd.grad(out, three, grads[n])
            graphs[n] = None
            del three, out
            for whole, slope in zip(ctx.whole, slopes, strict=True):
                whole.data[:, :, heads] = slope
            del slopes
        whole, ctx.whole = ctx.whole, []
        return None, *whole


def in_heads(query: Tensor, key: Tensor, value: Tensor, again: bool) -> tuple[Tensor, ...]:
    """Attention of (B, L, heads, width) tensors in groups of heads, which are not put together.

    Args:
        query, key, value: lent: they are overwritten when the gradient is taken.
        again: compute attention again for its gradient instead of keeping what that needs. Fused attention keeps
            little more than its result; plain products keep every pair of tokens.
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value)):
        made: tuple[Tensor, ...] = _Heads.apply(again, query, key, value)
        return made
    return tuple(attention(*(t[:, :, heads] for t in (query, key, value))) for heads in _groups(query))


def joint_in_parts(
    block: JointBlock,
    again: bool,
    video: Tensor,
    audio: Tensor,
    video_mod: Tensor,
    audio_mod: Tensor,
    video_text: Tensor,
    audio_text: Tensor,
    video_rope: Table,
    audio_rope: Table,
    video_clock: Table,
    audio_clock: Table,
    a2v_scale: Scale,
    v2a_scale: Scale,
    blank: bool = False,
) -> tuple[Tensor, Tensor]:
    """What `JointBlock.forward` computes.

    Args:
        again: as in `in_heads`.
        blank: only gradients are wanted: the picture that is returned is empty.
    """
    tower, self_attn, cross = block.video, block.video.self_attn, block.video.cross_attn
    paired = block.audio is not None
    a2v = block.a2v if paired and not _is_off(a2v_scale) else None
    v2a = block.v2a if paired and not _is_off(v2a_scale) else None
    sound: list[Tensor] = []
    used: list[nn.Module] = [
        tower.norm1, self_attn.q, self_attn.k, self_attn.v, self_attn.norm_q, self_attn.norm_k,
    ]  # fmt: skip
    if a2v is not None:
        heard = a2v.y_norm(audio)
        sound = [rotate_halves(_keys(a2v.inner, heard), audio_clock), _values(a2v.inner, heard)]
        used += [a2v.inner.q, a2v.inner.norm_q, a2v.inner.o]
    if v2a is not None:
        used += [v2a.y_norm, v2a.inner.k, v2a.inner.norm_k, v2a.inner.v]
    front = _front(tower, a2v, v2a, a2v_scale, video_rope, video_clock)
    video, query, key, value, *seen = in_parts(front, [video], [video_mod, *sound], used, False)
    if v2a is not None:
        asked = rotate_halves(_queries(v2a.inner, audio), audio_clock)
        audio = audio + v2a_scale * v2a.inner.o(attention(asked, *seen).flatten(2))
    del seen
    if block.audio is not None:
        audio = block.audio(audio, audio_mod, audio_text, audio_rope)
    mixed = in_heads(query, key, value, again)
    del query, key, value
    words = [_keys(cross, video_text), _values(cross, video_text)]
    used = [self_attn.o, cross.q, cross.norm_q, cross.o, tower.norm2, tower.norm3, tower.ffn]
    (video,) = in_parts(_back(tower), [video, *mixed], [video_mod, *words], used, blank)
    return video, audio


def _front(
    tower: TowerBlock, a2v: Conditioner | None, v2a: Conditioner | None, scale: Scale, rope: Table, clock: Table
) -> Piece:
    """Picture -> its sum with what it takes from the sound, query, key, value; key and value that the sound looks at.

    What it needs besides: modulation, key and value of the sound.
    """

    def front(part: slice, tokens: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[Tensor, ...]:
        (x,), (modulation, *sound), made, kind = tokens, others, [], tokens[0].dtype
        if v2a is not None:
            seen = v2a.y_norm(x)
            made = [rotate_halves(_keys(v2a.inner, seen), _cut(clock, part)), _values(v2a.inner, seen)]
        if a2v is not None:
            asked = rotate_halves(_queries(a2v.inner, x), _cut(clock, part))
            x = x + scale * a2v.inner.o(attention(asked, *sound).flatten(2))
        shift, scale1, *_ = (tower.modulation + modulation).chunk(6, 1)
        h = torch.addcmul(shift, tower.norm1(x), 1 + scale1)
        turned = [rotate_pairs(of(tower.self_attn, h), _cut(rope, part)) for of in (_queries, _keys)]
        return tuple(t.to(kind) for t in (x, *turned, _values(tower.self_attn, h), *made))

    return front


def _back(tower: TowerBlock) -> Piece:
    """Picture and what attention made of it, in groups of heads -> the picture after the block.

    What it needs besides: modulation, key and value of the text.
    """
    cross = tower.cross_attn

    def back(part: slice, tokens: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[Tensor, ...]:
        (x, *mixed), (modulation, keys, values), kind = tokens, others, tokens[0].dtype
        _, _, gate1, shift, scale, gate2 = (tower.modulation + modulation).chunk(6, 1)
        x = torch.addcmul(x, gate1, tower.self_attn.o(torch.cat(mixed, 2).flatten(2)))
        x = x + cross.o(attention(_queries(cross, tower.norm3(x)), keys, values).flatten(2))
        h = torch.addcmul(shift, tower.norm2(x), 1 + scale)
        return (torch.addcmul(x, gate2, tower.ffn(h)).to(kind),)

    return back


def autocast_of(tensor: Tensor) -> dict[str, Any]:
    """What `torch.autocast` takes to be as it is now, on this tensor's device. Without values there is none."""
    kind = "cpu" if tensor.is_meta else tensor.device.type
    return {"device_type": kind, "dtype": torch.get_autocast_dtype(kind), "enabled": torch.is_autocast_enabled(kind)}


def _queries(layer: Attention, x: Tensor) -> Tensor:
    made: Tensor = layer.norm_q(layer.q(x))
    return made.unflatten(-1, (layer.num_heads, -1))


def _keys(layer: Attention, source: Tensor) -> Tensor:
    made: Tensor = layer.norm_k(layer.k(source))
    return made.unflatten(-1, (layer.num_heads, -1))


def _values(layer: Attention, source: Tensor) -> Tensor:
    made: Tensor = layer.v(source)
    return made.unflatten(-1, (layer.num_heads, -1))


def _cut(table: Table, part: slice) -> Table:
    return table[0][part], table[1][part]


def _slices(tokens: Tensor) -> Iterator[slice]:
    """Parts of a tensor (B, L, ...). One without values is only metered: the first part takes what each one takes."""
    length = tokens.shape[1]
    for start in range(0, min(length, TOKENS) if tokens.is_meta else length, TOKENS):
        yield slice(start, min(start + TOKENS, length))


def _groups(query: Tensor) -> Iterator[slice]:
    for start in range(0, query.shape[2], HEADS):
        yield slice(start, start + HEADS)


def _is_off(scale: Scale) -> bool:
    return not isinstance(scale, Tensor) and scale == 0

"""LoRAs on a loaded model: several at once, each with its strengths, taken off without a trace.

Factors of linear layers become PEFT layers around the model's own, so that the base weights are not touched. What has
no such form (differences of norms, biases, modulations; factors of the patch embeddings) is added to the parameter,
whose original is kept and put back bit for bit.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from engine.errors import LoraError
from engine.lora.choice import Strengths
from engine.lora.fit import Fit, Shape, fit
from engine.lora.formats import LoraFile, Pair
from engine.lora.keys import AUDIO, BRIDGE, HIGH, LOW
from engine.lora.values import load
from engine.models import DualTower

log = logging.getLogger(__name__)

GROWN = "grown"  # name of the factors that are being trained


@dataclass(frozen=True)
class Applied:
    """One LoRA as it stands on the model.

    Attributes:
        name: unique on this model.
        effects: part -> root mean square of the change of its weights at strength 1; 0 is no effect.
        warnings: lines for the user, those of the fit among them.
    """

    name: str
    fit: Fit
    strengths: Strengths
    effects: dict[str, float]
    warnings: tuple[str, ...]

    @property
    def has_effect(self) -> bool:
        return any(rms * self.strengths.of(part) != 0 for part, rms in self.effects.items())


@dataclass(frozen=True)
class _Place:
    """A layer of the model: `parent.attribute` is `layer`, or a PEFT layer around it."""

    parent: nn.Module
    attribute: str
    layer: nn.Module


@dataclass
class _Edit:
    """A parameter that is changed in place: its original, on the CPU, and what each LoRA adds at strength 1."""

    owner: nn.Module
    name: str
    original: Tensor
    parts: dict[str, tuple[str, Tensor]]  # LoRA -> (part, difference)


@dataclass(frozen=True)
class Grown:
    """Fresh factors on a model, to be trained. Attributes: pairs, (part, module) -> (down, up)."""

    rank: int
    alpha: float
    pairs: dict[tuple[str, str], tuple[nn.Parameter, nn.Parameter]]
    layers: tuple[LoraLinear, ...]

    @contextmanager
    def off(self) -> Iterator[None]:
        """Within the block the model is as without them."""
        scale = self.alpha / self.rank
        for layer in self.layers:
            layer.scaling[GROWN] = 0.0
        try:
            yield
        finally:
            for layer in self.layers:
                layer.scaling[GROWN] = scale


class LoraStack:
    """The LoRAs of one model. The two experts share audio tower and bridge, which are therefore wrapped once.

    Args:
        high, low: the experts.
        device: where factors go; None follows each layer's weights.
    """

    def __init__(self, high: DualTower, low: DualTower, device: torch.device | None = None) -> None:
        self.device = device
        # Weights that stream may lie in another precision than they compute in; see `engine.memory.carry`.
        self._computes_in: torch.dtype | None = getattr(high, "computes_in", None)
        self._places: dict[tuple[str, str], _Place] = {}
        self._owners: dict[tuple[str, str], tuple[nn.Module, str]] = {}
        for part, network in ((HIGH, high), (LOW, low)):
            self._index(part, network)
        self.shapes = self._read_shapes()
        self._applied: dict[str, Applied] = {}
        self._edits: dict[tuple[str, str], _Edit] = {}
        self._merged: dict[tuple[str, str], Tensor] = {}
        self._count = 0

    @property
    def applied(self) -> tuple[Applied, ...]:
        """Every LoRA on the model, in the order it came."""
        return tuple(self._applied.values())

    @property
    def merged(self) -> bool:
        return bool(self._merged)

    def fit(self, file: LoraFile, tower: str | None = None) -> Fit:
        """Places a file in this model; see `engine.lora.fit.fit`."""
        return fit(file, self.shapes, tower)

    @torch.no_grad()
    def attach(self, lora: Fit, strengths: Strengths | None = None) -> Applied:
        """Puts a LoRA on the model. When it fails, the model is as before.

        Raises:
            LoraError: a value is not finite, the file changed meanwhile, or a parameter cannot be changed.
        """
        self._refuse_merged("attach")
        strengths = (strengths or Strengths()).checked(lora.file.name)
        self._count += 1
        name = f"lora{self._count}"
        squares: dict[str, float] = dict.fromkeys(sorted(lora.parts), 0.0)
        numbers = dict.fromkeys(squares, 0)
        try:
            for part, pair in lora.pairs:
                down, up = load(lora.file.header, pair.down), load(lora.file.header, pair.up)
                place = self._places[part, pair.module]
                if isinstance(place.layer, nn.Conv1d | nn.Conv3d):
                    difference = pair.scale * (up.flatten(1).float() @ down.flatten(1).float())
                    self._edit(name, part, f"{pair.module}.weight", difference.view(place.layer.weight.shape))
                else:
                    self._wrap(name, place, pair, down.flatten(1), up.flatten(1))
                squares[part] += pair.scale**2 * _product_square(down.flatten(1), up.flatten(1))
                numbers[part] += up.shape[0] * down[0].numel()
            for part, delta in lora.deltas:
                difference = load(lora.file.header, delta.tensor).float()
                self._edit(name, part, delta.parameter, difference.view(self.shapes[part][delta.parameter]))
                squares[part] += float(difference.double().square().sum())
                numbers[part] += difference.numel()
        except BaseException:
            self._remove(name)
            raise
        effects = {part: math.sqrt(squares[part] / max(1, numbers[part])) for part in squares}
        warnings = list(lora.warnings)
        still = [part for part, rms in effects.items() if rms == 0]
        if len(still) == len(effects):
            warnings.append("it has no effect: all that it adds is zero")
        elif still:
            warnings.append(f"it has no effect on: {', '.join(still)}")
        self._applied[name] = Applied(name, lora, strengths, effects, tuple(warnings))
        self._refresh(name)
        for line in warnings:
            log.warning("%s: %s", lora.file.name, line)
        return self._applied[name]

    @torch.no_grad()
    def set_strengths(self, name: str, strengths: Strengths) -> Applied:
        """Changes how much of a LoRA is used; nothing is loaded again."""
        self._refuse_merged("change")
        self._applied[name] = replace(self._applied[name], strengths=strengths.checked(name))
        self._refresh(name)
        return self._applied[name]

    @torch.no_grad()
    def detach(self, name: str) -> None:
        """Takes one LoRA off; without others the model's weights are bit for bit what they were."""
        self._refuse_merged("detach")
        del self._applied[name]
        self._remove(name)

    def detach_all(self) -> None:
        """Takes every LoRA off, merged or not."""
        if self.merged:
            self.unmerge()
        for name in list(self._applied):
            self.detach(name)

    def arrange(self, wanted: Sequence[tuple[Fit, Strengths]]) -> tuple[Applied, ...]:
        """Makes `wanted` what is on the model, in its order, whatever was there before.

        What stays is not loaded again, what is not wanted goes. When it fails, the model is as before.
        """
        if self.merged:
            self.unmerge()
        order: list[str] = []
        fresh: list[str] = []
        try:
            for lora, strengths in wanted:
                strengths.checked(lora.file.name)
                same = next((a.name for a in self.applied if a.name not in order and _same(a.fit, lora)), None)
                if same is None:
                    same = self.attach(lora, strengths).name
                    fresh.append(same)
                order.append(same)
        except BaseException:
            for name in fresh:
                self.detach(name)
            raise
        for name in [n for n in self._applied if n not in order]:
            self.detach(name)
        self._applied = {name: self._applied[name] for name in order}
        for name, (_, strengths) in zip(order, wanted, strict=True):
            self.set_strengths(name, strengths)
        return self.applied

    @torch.no_grad()
    def grow(self, rank: int, alpha: float, wanted: Callable[[str, str], bool], seed: int) -> Grown:
        """Puts fresh factors on linear layers, to be trained: `down` small and random, `up` zero. float32.

        Args:
            wanted: says of (part, module) whether it gets factors.
            seed: of the random numbers; the same ones on every device.

        Raises:
            LoraError: there are LoRAs on the model, or no layer is wanted.
        """
        if self._applied or self._merged:
            raise LoraError("take the LoRAs off first; a new one grows on the bare model")
        pairs: dict[tuple[str, str], tuple[nn.Parameter, nn.Parameter]] = {}
        layers = []
        generator = torch.Generator().manual_seed(seed)
        for (part, module), place in self._places.items():
            if isinstance(place.layer, nn.Conv1d | nn.Conv3d) or not wanted(part, module):
                continue
            outputs, inputs = self.shapes[part][f"{module}.weight"]
            spread = 1.0 / math.sqrt(inputs)
            down = (torch.rand(rank, inputs, generator=generator) * 2 - 1) * spread
            pair = Pair(part, module, "", "", rank, alpha)
            self._wrap(GROWN, place, pair, down, torch.zeros(outputs, rank), torch.float32)
            layer = getattr(place.parent, place.attribute)
            layer.scaling[GROWN] = pair.scale
            layer.set_adapter([GROWN])
            layers.append(layer)
            pairs[part, module] = layer.lora_A[GROWN].weight, layer.lora_B[GROWN].weight
        if not pairs:
            raise LoraError("no layer of this model is wanted; nothing could be trained")
        return Grown(rank, alpha, pairs, tuple(layers))

    def cut(self) -> None:
        """Takes off what `grow` put on."""
        self._remove(GROWN)

    @torch.no_grad()
    def merge(self) -> None:
        """Folds the factors into the weights, at their strengths: as fast as without, for twice the memory on the CPU.

        The sum is taken in float32 and rounded once. `unmerge` puts the kept originals back.

        Raises:
            LoraError: a weight is not in floating point (8-bit weights cannot take a difference).
        """
        self._refuse_merged("merge")
        try:
            for key, place, layer in self._wrapped():
                weight = place.layer.weight
                if not isinstance(weight, Tensor) or not weight.is_floating_point():
                    raise LoraError(f"{key[1]} is not in floating point; merging needs weights that are")
                total = weight.float()
                for name in layer.active_adapters:
                    up, down = (factors[name].weight for factors in (layer.lora_B, layer.lora_A))
                    assert isinstance(up, Tensor)
                    assert isinstance(down, Tensor)
                    total = total + layer.scaling[name] * (up.float() @ down.float()).to(total.device)
                self._merged[key] = weight.detach().to("cpu", copy=True)
                weight.data.copy_(total)
                layer.enable_adapters(False)
        except BaseException:
            self.unmerge()
            raise

    @torch.no_grad()
    def unmerge(self) -> None:
        """Puts the original weights back; the LoRAs go on beside them."""
        for key, original in self._merged.items():
            place = self._places[key]
            weight = place.layer.weight
            assert isinstance(weight, Tensor)
            weight.data.copy_(original)
            current = getattr(place.parent, place.attribute)
            if isinstance(current, LoraLinear):
                current.enable_adapters(True)
                current.requires_grad_(False)
        self._merged = {}

    def _refuse_merged(self, what: str) -> None:
        if self._merged:
            raise LoraError(f"cannot {what} while LoRAs are merged; unmerge first")

    def _index(self, part: str, network: DualTower) -> None:
        """Finds every layer and parameter by part and native name."""
        for joint, module in network.named_modules():
            found = native_name(joint, part)
            if found is None or (found in self._places and found[0] in (AUDIO, BRIDGE)):
                continue
            for name, _ in module.named_parameters(recurse=False):
                self._owners.setdefault((found[0], f"{found[1]}.{name}" if found[1] else name), (module, name))
            if hasattr(module, "in_features") or isinstance(module, nn.Conv1d | nn.Conv3d):
                parent, _, attribute = joint.rpartition(".")
                self._places[found] = _Place(network.get_submodule(parent), attribute, module)

    def _read_shapes(self) -> dict[str, dict[str, Shape]]:
        shapes: dict[str, dict[str, Shape]] = {p: {} for p in (HIGH, LOW, AUDIO, BRIDGE)}
        for (part, name), (owner, attribute) in self._owners.items():
            shapes[part][name] = tuple(getattr(owner, attribute).shape)
        for (part, name), place in self._places.items():
            if hasattr(place.layer, "in_features"):  # also where the weight is packed or elsewhere
                sizes = place.layer.out_features, place.layer.in_features
                assert isinstance(sizes[0], int)
                assert isinstance(sizes[1], int)
                shapes[part][f"{name}.weight"] = (sizes[0], sizes[1])
        return shapes

    def _wrap(
        self, name: str, place: _Place, pair: Pair, down: Tensor, up: Tensor, precise: torch.dtype | None = None
    ) -> None:
        """Adds a pair to a layer, which becomes a PEFT layer with the first one."""
        layer = getattr(place.parent, place.attribute)
        config = LoraConfig(r=pair.rank, lora_alpha=pair.rank, init_lora_weights=False, inference_mode=True)
        with torch.device("meta"):  # PEFT would draw random factors; these come from the file
            if isinstance(layer, LoraLinear):
                layer.update_layer(name, pair.rank, pair.rank, config=config)
            else:
                layer = LoraLinear(layer, name, config, r=pair.rank, lora_alpha=pair.rank)
        dtype, device = _numbers_of(place.layer)
        dtype = precise or self._computes_in or dtype
        for factors, values in ((layer.lora_A, down), (layer.lora_B, up)):
            moved = values.to(self.device or device, dtype).contiguous()
            if not bool(torch.isfinite(moved).all()):
                raise LoraError(f"{pair.module}: a value is too large for {str(dtype).removeprefix('torch.')}")
            factors[name].weight = nn.Parameter(moved, requires_grad=False)
        layer.scaling[name] = 0.0
        layer.lora_alpha[name] = pair.scale  # at strength 1; `_refresh` makes the scaling of it
        layer.train(place.layer.training)
        setattr(place.parent, place.attribute, layer)

    def _edit(self, name: str, part: str, parameter: str, difference: Tensor) -> None:
        owner, attribute = self._owners.get((part, parameter), (None, ""))
        value = getattr(owner, attribute, None)
        if owner is None or not isinstance(value, Tensor) or not value.is_floating_point():
            raise LoraError(f"{parameter} is packed (8-bit weights) and cannot take a difference; use bf16 weights")
        edit = self._edits.get((part, parameter))
        if edit is None:
            edit = self._edits[part, parameter] = _Edit(owner, attribute, value.detach().to("cpu", copy=True), {})
        edit.parts[name] = (part, difference)

    def _remove(self, name: str) -> None:
        """Takes every trace of a LoRA off; a layer without any left is the model's own again."""
        for _, place, layer in list(self._wrapped()):
            if name in layer.lora_A:
                layer.set_adapter([n for n in layer.active_adapters if n != name], inference_mode=True)
                layer.delete_adapter(name)
            if not layer.lora_A:
                setattr(place.parent, place.attribute, place.layer)
            else:
                self._activate(layer)
        for key, edit in list(self._edits.items()):
            if edit.parts.pop(name, None) is not None:
                self._write(edit)
            if not edit.parts:
                del self._edits[key]

    def _refresh(self, name: str) -> None:
        """Brings the strengths of one LoRA into effect."""
        strengths = self._applied[name].strengths
        for (part, _), _, layer in self._wrapped():
            if name in layer.lora_A:
                layer.scaling[name] = layer.lora_alpha[name] * strengths.of(part)
                self._activate(layer)
        for edit in self._edits.values():
            if name in edit.parts:
                self._write(edit)

    def _activate(self, layer: LoraLinear) -> None:
        """Only factors with a strength are computed, in the order of `applied`: sums are then the same to the bit."""
        names = [n for n in self._applied if n in layer.lora_A and layer.scaling[n] != 0]
        layer.set_adapter(names, inference_mode=True)

    def _write(self, edit: _Edit) -> None:
        """Original and differences to the parameter, summed in float32; none leaves exactly the original."""
        total = edit.original.float()
        parts = [(self._applied[n], *edit.parts[n]) for n in self._applied if n in edit.parts]
        strong = [(difference, lora.strengths.of(part)) for lora, part, difference in parts]
        strong = [(d, s) for d, s in strong if s != 0]
        for difference, strength in strong:
            total = total + strength * difference
        value, kind = getattr(edit.owner, edit.name), edit.original.dtype
        if self._computes_in is not None and self._computes_in.itemsize > kind.itemsize:
            # Rounded to how it is stored, the sum would not be that of a model whose weights do not stream.
            value.data = total.to(self._computes_in) if strong else edit.original.clone()
        else:
            value.data.copy_(total if strong else edit.original)

    def _wrapped(self) -> Iterator[tuple[tuple[str, str], _Place, LoraLinear]]:
        for key, place in self._places.items():
            layer = getattr(place.parent, place.attribute)
            if isinstance(layer, LoraLinear):
                yield key, place, layer


_TOWER = re.compile(r"blocks\.(\d+)\.(video|audio|a2v|v2a)(?:\.(.+))?$")
_CONDITIONERS = {"a2v": "audio_to_video_conditioners", "v2a": "video_to_audio_conditioners"}


def native_name(joint: str, expert: str) -> tuple[str, str] | None:
    """A module's name in the joint network -> (part, name in the released layout); None for the frame around them."""
    for ends, part in (("video_ends", expert), ("audio_ends", AUDIO)):
        if joint.startswith(ends + "."):
            return part, joint[len(ends) + 1 :]
    found = _TOWER.match(joint)
    if found is None:
        return None
    layer, tower, rest = found.groups()
    tail = "" if rest is None else f".{rest}"
    if tower in _CONDITIONERS:
        return BRIDGE, f"{_CONDITIONERS[tower]}.{layer}{tail}"
    return (expert if tower == "video" else AUDIO), f"blocks.{layer}{tail}"


def _product_square(down: Tensor, up: Tensor) -> float:
    """The squared Frobenius norm of up @ down, through matrices of the rank's size."""
    d, u = down.double(), up.double()
    return max(0.0, float(((u.T @ u) * (d @ d.T).T).sum()))


def _numbers_of(layer: nn.Module) -> tuple[torch.dtype, torch.device]:
    """In what precision and where a layer computes; packed weights compute in that of the bias."""
    for value in (getattr(layer, "weight", None), getattr(layer, "bias", None)):
        if isinstance(value, Tensor) and value.is_floating_point() and value.element_size() > 1:
            return value.dtype, value.device
    first: Iterable[Tensor] = [*layer.parameters(), *layer.buffers()]
    device = next((t.device for t in first), torch.device("cpu"))
    return (torch.bfloat16 if device.type == "cuda" else torch.float32), device


def _same(one: Fit, other: Fit) -> bool:
    """The same file, by its header, size and time of change, in the same places."""
    return one.file.header == other.file.header and one.pairs == other.pairs and one.deltas == other.deltas

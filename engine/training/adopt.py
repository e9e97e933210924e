"""Goes on from a finished model: its weights stand for the checkpoints of the stages that made them.

A working folder is large and gets lost; the model that it made is kept. What a model no longer has are the moments of
the optimizer and the classifier of ``Naming``: the learning rate climbs anew from its step, see
``Optimization.rate_at``, and the classifier, one linear layer, is learned again.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn

from engine.errors import RequestError
from engine.training import checkpoint
from engine.training.demo import DemoRun
from engine.training.recipe import Recipe, Stage, read_recipe
from engine.weights import load_component, load_text_encoder

log = logging.getLogger(__name__)

CPU = torch.device("cpu")


def adopt(run: DemoRun, model: Path) -> None:
    """Writes a checkpoint for every trained stage that has none, at the step where the model's own recipe ended.

    Args:
        model: a folder that ``DemoRun.export`` wrote.

    Raises:
        RequestError: the model was made by a recipe with other networks.
        CheckpointError: a component cannot be loaded.
    """
    made = read_recipe(model / "recipe.toml")
    for name in ("video_config", "audio_config", "text_config", "tower_configs"):
        if getattr(made, name) != getattr(run.recipe, name):
            raise RequestError(f"the model in {model.name} has another {name} than the recipe")
    wider, wanted = made.video_decoder, run.recipe.video_decoder
    if wider is not None and (wanted is None or wanted.base_dim != wider.base_dim):
        raise RequestError(f"the model in {model.name} has a decoder of another width than the recipe")
    for stage, how, make in (
        ("video-vae", made.video, lambda: _video(run, made, model)),
        ("video-decoder", None if wider is None else wider.stage, lambda: _decoder(run, model)),
        ("audio-vae", made.audio, lambda: _audio(run, model)),
        ("towers", made.towers, lambda: _towers(run, model)),
    ):
        if how is not None and not (run.work / stage / "checkpoint.pt").exists():
            _write(run.work / stage / "checkpoint.pt", make(), how)
            log.info("%s: begins with %s, at step %d", stage, model.name, how.optimization.steps)


def _video(run: DemoRun, made: Recipe, model: Path) -> nn.Module:
    """Where a wider decoder was trained afterwards, the narrow one is lost, and nothing asks for it any more."""
    objective = run.video_objective()
    state = load_component(model, "video_vae", torch.float32, CPU).state_dict()
    if made.video_decoder is not None:
        state |= {name: value for name, value in objective.vae.state_dict().items() if name.startswith("decoder.")}
    objective.vae.load_state_dict(state)
    return objective


def _decoder(run: DemoRun, model: Path) -> nn.Module:
    objective = run.wider_objective(run.encoding_vae())
    objective.vae.load_state_dict(load_component(model, "video_vae", torch.float32, CPU).state_dict())
    return objective


def _audio(run: DemoRun, model: Path) -> nn.Module:
    objective = run.audio_objective(fresh=False)
    objective.vae.load_state_dict(load_component(model, "audio_vae", torch.float32, CPU).state_dict())
    return objective


def _towers(run: DemoRun, model: Path) -> nn.Module:
    objective = run.joint_objective()
    networks = objective.networks
    for module, name in (
        (networks.high, "video_dit"),
        (networks.low, "video_dit_2"),
        (networks.audio, "audio_dit"),
        (networks.bridge, "dual_tower_bridge"),
    ):
        module.load_state_dict(load_component(model, name, torch.float32, CPU).state_dict())
    objective.text_encoder.load_state_dict(load_text_encoder(model, torch.float32, CPU).state_dict())
    return objective


def _write(path: Path, objective: nn.Module, stage: Stage) -> None:
    checkpoint.write_atomically(
        path,
        {
            "step": stage.optimization.steps,
            "model": dict(objective.state_dict()),
            "optimizer": None,
            "average": {name: p.detach().clone() for name, p in objective.named_parameters()},
            "random": checkpoint.random_states(),
            "fresh": stage.optimization.steps,
        },
    )

"""Colours straight from latents, where the VAE waits in main memory: near what decoding shows, without decoding."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import engine.decode
from app.preview import Previewer
from engine.colours import colour_matrix, colours_of
from engine.decode import decode_video
from engine.encode import encode_frames
from engine.errors import CheckpointError
from engine.folders import find_model
from engine.schedule import ScheduleConfig
from engine.weights import load_component
from tests.memory_parts import TINY


@pytest.fixture(scope="module")
def vae():
    try:
        folder = find_model("demo")
    except CheckpointError as error:
        pytest.skip(f"the bundled model is not in this tree: {error}")
    return load_component(folder, "video_vae", torch.float32, torch.device("cpu"))


def picture():
    """A red disc on a blue ground with a white bar; (3, 96, 96) in [-1, 1]."""
    y, x = np.mgrid[:96, :96]
    colours = np.full((96, 96, 3), (30, 40, 160), np.uint8)
    colours[(x - 40) ** 2 + (y - 44) ** 2 < 24**2] = (220, 40, 30)
    colours[76:88] = 245
    return torch.from_numpy(colours / np.float32(127.5) - 1).permute(2, 0, 1).float()


def test_the_colours_are_those_of_the_decoded_picture(vae):
    latents = encode_frames(vae, picture()[None, :, None].expand(-1, -1, 5, -1, -1))
    for frame in range(latents.shape[2]):
        fast = colours_of(vae, latents[:, :, frame])
        decoded = decode_video(vae, latents)[:, :, -1 if frame else 0]
        small = F.interpolate(decoded, fast.shape[2:], mode="area")
        error = float((fast - small).abs().mean()) / 2
        flat = float((small - small.mean((2, 3), keepdim=True)).abs().mean()) / 2
        print(f"latent frame {frame}: mean difference {error:.3f} of the range; of one flat colour {flat:.3f}")
        assert error < 0.75 * flat


def test_it_is_fitted_once_for_a_network(monkeypatch):
    tiny = load_component(TINY, "video_vae", torch.float32, torch.device("cpu"))
    first = colour_matrix(tiny)
    assert first.shape == (tiny.config.z_dim + 1, 3)
    monkeypatch.setattr("engine.colours.encode_frames", lambda *a: pytest.fail("fitted again"))
    assert colour_matrix(tiny) is first


@pytest.mark.parametrize(("device", "decodes"), [("cuda", 0), ("cpu", 1)])
def test_previews_decode_only_where_the_vae_is(monkeypatch, vae, device, decodes):
    calls, real = [], engine.decode.decode_video
    monkeypatch.setattr(engine.decode, "decode_video", lambda *a, **k: (calls.append(1), real(*a, **k))[1])
    pipe = SimpleNamespace(schedule=ScheduleConfig(), video_vae=vae, device=torch.device(device))
    previewer = Previewer(pipe, SimpleNamespace(steps=2, video_shift=None, audio_shift=None), print)
    latents = encode_frames(vae, picture()[None, :, None])
    shown = Image.open(io.BytesIO(previewer._picture(latents))).convert("RGB")
    assert len(calls) == decodes
    middle = np.asarray(shown.resize((96, 96)))[44, 40].astype(int)
    assert middle[0] > middle[2] + 40  # the disc is red

"""The networks of MOVA, key for key as released: two towers, their bridge, the joint module, the audio VAE."""

from engine.models.bridge import Bridge
from engine.models.dac import AudioVAE
from engine.models.dual_tower import DualTower
from engine.models.towers import AudioTower, VideoTower

__all__ = ["AudioTower", "AudioVAE", "Bridge", "DualTower", "VideoTower"]

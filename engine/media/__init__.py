"""Everything that reads a file a user brought, or writes one that a player opens.

    images.py    pictures to RGB, crop to size, thumbnails, PNG
    probe.py     what is in a video or sound file; settings in its comment tag
    loudness.py  waveform peaks, peak limiting, loudness, clipping marks
    mux.py       frames and samples to a verified mp4
    read.py      clips and sounds back from files
    edit.py      trim, join, gain and fades in memory
    export.py    wav, webm, gif, png, a part, several joined
    publish.py   files that appear whole or not at all
    ffmpeg.py    the ffmpeg binary as a bounded child process

Frames are uint8 (F, H, W, 3) RGB, samples float32 with full scale 1. Errors are `MediaError` for what comes in and
`OutputError` for what goes out. Nothing here needs torch.
"""

from engine.media.edit import gain_and_fades, join, trim
from engine.media.export import export_frame_png, export_gif, export_join, export_trim, export_wav, export_webm
from engine.media.images import cover_box, fit_image, load_image, save_png, thumbnail
from engine.media.loudness import Loudness, clipping_marks, limit_peak, loudness, mono, peaks
from engine.media.mux import ClipFile, write_clip
from engine.media.probe import MediaInfo, probe, read_settings
from engine.media.publish import atomic_file
from engine.media.read import Clip, read_audio, read_clip

__all__ = [
    "Clip",
    "ClipFile",
    "Loudness",
    "MediaInfo",
    "atomic_file",
    "clipping_marks",
    "cover_box",
    "export_frame_png",
    "export_gif",
    "export_join",
    "export_trim",
    "export_wav",
    "export_webm",
    "fit_image",
    "gain_and_fades",
    "join",
    "limit_peak",
    "load_image",
    "loudness",
    "mono",
    "peaks",
    "probe",
    "read_audio",
    "read_clip",
    "read_settings",
    "save_png",
    "thumbnail",
    "trim",
    "write_clip",
]

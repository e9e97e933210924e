"""Every error that the engine raises on purpose.

    MovaError
    |-- RequestError       what was asked for is not valid; names the nearest valid value (also a ValueError)
    |-- MediaError         a picture, video or sound file cannot be read, or a result cannot be written
    |   `-- OutputError    encoding, muxing or publishing the result failed; nothing partial is left behind
    |-- CheckpointError    a model folder is incomplete, misshapen, or uses an option that is not built
    |-- LoraError          a LoRA file cannot be used: not what it claims to be, or made for another model
    |-- OutOfMemory        memory ran out, also with the leanest plan; says what would fit
    |-- NumericsError      latents, frames or samples became NaN or infinite
    `-- Cancelled          the caller stopped the run

A command-line program shows ``str(error)`` on one line and exits with 2 (130 for `Cancelled`). Any other exception
is a defect of ours and keeps its traceback.
"""

from __future__ import annotations


class MovaError(Exception):
    """Base of all errors that a user can do something about."""


class RequestError(MovaError, ValueError):
    """A value of the request lies outside what the model or the engine accepts."""


class MediaError(MovaError):
    """A file that the user brought cannot be read as what it claims to be."""


class OutputError(MediaError):
    """A result could not be encoded, muxed or put in its place."""


class CheckpointError(MovaError):
    """A model folder does not hold exactly what its configs promise."""


class LoraError(MovaError):
    """A LoRA file cannot be read as one, or does not fit the model. The message names the file and what is wrong."""


class OutOfMemory(MovaError):
    """The device's or the machine's memory ran out, and a leaner way did not help either."""


class NumericsError(MovaError):
    """A tensor that must be finite is not."""


class Cancelled(MovaError):
    """The run was stopped by its caller before it was complete."""

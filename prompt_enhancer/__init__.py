"""Idea in, prompt out: knows no torch, no Gradio and no engine.

    from prompt_enhancer import EnhanceRequest, enhance
    print(enhance(EnhanceRequest("A red ball bounces slowly.")).text)

enhance.py      the one public function: who writes, and what is put together
request.py      what is asked and answered, limits, cleaning, languages; every error
draft.py        a request taken apart. speech.py: what is said in an idea, taken out before anybody writes
asking.py       asks a model and looks at what it says. rules.py: writes without one
guarantees.py   what a model may not add; what every prompt must hold. lexicon.py: the word lists for both
pictures.py     what is certain about a first frame. vision.py: what a vision model says of it
catalogue.py    models by name
writer.py       the caller's end of the model process. child.py: the process; llama.py, eyes.py: llama.cpp in it
chat.py         how a model is asked, and the grammar of its answer
cli.py          python launch.py enhance
training/       how the bundled model is made
"""

from prompt_enhancer.enhance import enhance, release
from prompt_enhancer.request import (
    EnhancedPrompt,
    EnhancerCancelled,
    EnhanceRequest,
    EnhancerError,
    IdeaError,
    ModelError,
    Paragraph,
)
from prompt_enhancer.writer import missing

__all__ = [
    "EnhanceRequest",
    "EnhancedPrompt",
    "EnhancerCancelled",
    "EnhancerError",
    "IdeaError",
    "ModelError",
    "Paragraph",
    "enhance",
    "missing",
    "release",
]

"""Training of a LoRA on one's own clips: `python launch.py train lora`.

    settings.py  what can be chosen, with defaults that are meant to be left alone
    clips.py     a folder of videos with captions -> pieces of the right length; what was left out, and why
    cache.py     latents and text embeddings, made once and found again by hash
    task.py      the module that is trained, its batches and its losses
    memory.py    how it is done in the memory there is; choose.py asks the machine, graph.py meters a block
    streamed.py  blocks that keep only their inputs, and whose weights may stream; parts.py: some tokens at a time
    made.py      clips that it makes itself: samples, and what shall not be forgotten
    run.py       the whole run: scan, encode, train, write, into the library
    progress.py  how far it is, for whoever watches
    card.py      what is written about a LoRA: metadata, card, preview
    cli.py       the command

The loop, its checkpoints and its log are those of every other training here (engine/training/loop.py).
"""

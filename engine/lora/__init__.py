"""LoRA files: read from any maker, applied to a loaded model, kept in a library, trained.

    header.py    a safetensors header, checked before anything is believed
    keys.py      what a tensor's name says: module, tower, role
    formats.py   any file to one canonical form, with a report of every key
    fit.py       does it fit this model: tower, shapes, what is applied, what is not and why
    values.py    the tensors themselves, read piece by piece
    about.py     name, trigger words, licence and other facts from metadata
    convert.py   .pt files and foreign namings to files of our own form
    apply.py     on a loaded model: attach, strengths, detach, merge
    library.py   the folder of LoRAs, found by hash
    cli.py       python launch.py lora

Only apply.py and convert.py need torch, so that the page can read and judge files without it.
"""

"""How the bundled model is made; only here may the enhancer import torch and transformers.

world.py    facts of the bundled video model's world, as data
ideas.py    grammars: what a user might write, and the answer that the model shall give
train.py    tokenizer and network from these texts; resumable
export.py   the trained network as a GGUF file, and the check that llama.cpp computes the same
"""

"""Idea in, prompt out: knows no torch, no Gradio and no engine."""

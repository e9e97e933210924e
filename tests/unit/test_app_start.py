"""What makes the studio open fast."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
from pathlib import Path
from app.quick_gradio import no_stubs
no_stubs()
import gradio
from gradio import component_meta
assert "def create_or_modify_pyi" in Path(component_meta.__file__).read_text(encoding="utf-8"), "Gradio has changed"
stub = Path(gradio.__file__).parent / "components" / "textbox.pyi"
before = stub.stat().st_mtime_ns if stub.exists() else None
component_meta.create_or_modify_pyi(gradio.Textbox, "Textbox", ["change"])
assert (stub.stat().st_mtime_ns if stub.exists() else None) == before
with gradio.Blocks():
    box = gradio.Textbox("a bell", interactive=True)
    box.change(lambda text: text, box, box)
assert box.value == "a bell"
no_stubs()
print("quick")
"""


def test_gradio_is_whole_without_writing_stubs() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=120)
    assert done.stdout == "quick\n", done.stderr

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


def test_our_own_components_get_no_stubs() -> None:
    """Also where Gradio was imported before, by whoever."""
    look = "import gradio, pathlib, app.tabs.typed as t; print(pathlib.Path(t.__file__).with_suffix('.pyi').exists())"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n", done.stderr

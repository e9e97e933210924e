"""Short forms of the enhancer's campaigns: hostile ideas, hostile replies, damaged model files."""

from __future__ import annotations

from pathlib import Path

from tests.enhancer_parts import need_llama
from tests.faults import enhancer_fuzz, enhancer_world, mutate_gguf


def test_hostile_ideas_end_in_a_prompt_or_a_message() -> None:
    outcomes = enhancer_fuzz.fuzz_ideas(120, seed=7)
    assert set(outcomes) <= {"kept", "refused"}
    assert outcomes["kept"] >= 115, outcomes


def test_hostile_replies_end_in_a_prompt_without_their_lies() -> None:
    outcomes = enhancer_fuzz.fuzz_replies(120, seed=7)
    assert set(outcomes) <= {"kept, written by rules", "kept, written by demo"}
    assert outcomes["kept, written by demo"] > 0


def test_damaged_model_files_never_reach_the_caller(tmp_path: Path) -> None:
    need_llama()
    outcomes, defects = mutate_gguf.campaign(20, seed=7, folder=tmp_path)
    assert defects == []
    assert sum(outcomes.values()) == 20
    assert outcomes["told"] + outcomes["died"] > 5


def test_a_hostile_chat_template_is_never_looked_at(tmp_path: Path) -> None:
    """A template in the file that would end in an endless loop changes nothing: ours is used."""
    need_llama()
    import gguf

    from prompt_enhancer import EnhanceRequest, enhance
    from prompt_enhancer.catalogue import BUNDLED_FILE
    from prompt_enhancer.writer import Writer

    path = tmp_path / "template.gguf"
    _with_template(gguf, BUNDLED_FILE, path, "{% for i in range(10**12) %}{{ raise_exception(i) }}{% endfor %}")
    writer = Writer()
    try:
        result = enhance(EnhanceRequest("A red ball bounces slowly.", model=str(path)), writer=writer)
    finally:
        writer.release()
    assert result.tokens > 0
    assert result.seconds < 30
    assert "{%" not in result.text


def _with_template(gguf, source: Path, target: Path, template: str) -> None:
    """A copy of a GGUF file with a chat template among its entries."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(str(target), "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    writer.add_chat_template(template)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_demo_world_s_ideas_are_kept() -> None:
    need_llama()
    losses, writers, lines, _ = enhancer_world.campaign(30, seed=7)
    assert losses["all kept"] >= 29, lines
    assert writers["demo"] >= 20, writers

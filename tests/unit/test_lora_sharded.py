"""The frozen model shared out over two gloo processes: numbers, samples and files are those of one process."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from torch import nn

from engine.device import choose_device
from engine.errors import RequestError
from engine.memory.machine import GIB
from engine.memory.sizes import RELEASED
from engine.training import checkpoint
from engine.training.log import read_lines
from engine.training.lora import run, sharded
from engine.training.lora.choose import plan_training
from engine.training.lora.memory import Load, account, make_sharded_plan, start
from engine.training.lora.run import LoraOrder, train_lora
from engine.training.lora.settings import LoraSettings
from engine.training.lora.table import load_for
from tests.unit.test_lora_plan import card
from tests.unit.test_lora_training import _own_cache, home, order  # noqa: F401  (fixtures)

STEPS, CUT = 6, 4
MORE = {"steps": STEPS, "sample_every": 3}
MIXED = 0.0625  # of the samples kept: one in four steps, among new ones, and thus in one of two processes
CPU = torch.device("cpu")


def _bytes_held(both: nn.Module) -> int:
    """Bytes of parameters that this process holds while nothing computes."""
    local = [p.to_local() if hasattr(p, "to_local") else p for p in both.parameters()]
    return sum(p.numel() * p.element_size() for p in local)


def _work(rank: int, port: int, wanted: LoraOrder, folder: Path) -> None:
    """One of two processes: trains to `CUT`, then, as if started again, to the end."""
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )  # fmt: skip
    held: list[tuple[int, int]] = []

    def share_out(pipe, *rest):  # type: ignore[no-untyped-def]
        whole = {p for e in (pipe.high_noise, pipe.low_noise) for p in e.parameters()}
        size = sum(p.numel() * p.element_size() for p in whole)
        both = sharded.share_out(pipe, *rest)
        held.append((size, _bytes_held(both)))
        return both

    run.share_out = share_out  # type: ignore[attr-defined]
    run.cache_folder = lambda: folder / "cache"  # type: ignore[attr-defined]
    assert train_lora(wanted, until=CUT) is None
    assert checkpoint.read(wanted.folder / "checkpoint.pt")["step"] == CUT
    torch.manual_seed(7 + rank)
    done = train_lora(wanted)
    assert (done is not None) == (rank == 0)
    (folder / f"held-{rank}.txt").write_text(str(held), encoding="utf-8")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("keep", [MIXED, 0.25])
def test_two_processes_with_shares_equal_one(home: Path, tmp_path: Path, keep: float) -> None:  # noqa: F811
    """Losses in any case; factors where no step has kept samples alone.

    Their gradient is next to nothing in the beginning, and Adam's first steps are as large for small gradients as for
    large ones: they show the order in which processes add up, in a few numbers and by less than a step.
    """
    alone = order(home, f"alone-{keep}", **MORE, keep=keep)
    together = replace(order(home, f"together-{keep}", **MORE, keep=keep), shard="yes")
    near = 1e-5 if keep == MIXED else alone.settings.rate
    assert train_lora(alone) is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_work, (port, together, tmp_path), nprocs=2)
    a, b = (checkpoint.read(o.folder / "checkpoint.pt") for o in (alone, together))
    assert a["step"] == b["step"] == STEPS
    assert a["optimizer"].keys() == b["optimizer"].keys()
    for part in ("model", "average"):
        assert a[part].keys() == b[part].keys()
        for name, value in a[part].items():
            assert type(b[part][name]) is torch.Tensor
            torch.testing.assert_close(b[part][name], value, rtol=1e-5, atol=near)
    lines = [[r for r in read_lines(o.folder / "log.jsonl") if "loss" in r] for o in (alone, together)]
    assert [r["step"] for r in lines[1]] == list(range(1, STEPS + 1))
    for one, two in zip(*lines, strict=True):
        assert one.keys() == two.keys()
        for side in one.keys() - {"step", "rate", "step_seconds", "seconds"}:
            assert two[side] == pytest.approx(one[side], rel=1e-5), side
    files = [next(o.folder.glob("*.safetensors")) for o in (alone, together)]
    ours, theirs = (load_file(file) for file in files)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-5, atol=near)
    samples = [sorted(p.name for p in (o.folder / "samples").glob("*.mp4")) for o in (alone, together)]
    assert samples[0] == samples[1] != []
    for rank in range(2):
        for whole, held in eval((tmp_path / f"held-{rank}.txt").read_text(encoding="utf-8")):  # noqa: S307  (ours)
            print(f"process {rank} holds {held} of {whole} bytes")
            assert held < 0.75 * whole  # blocks are halved; ends and factors are not


def test_shares_and_what_excludes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for settings, world, says in (
        (LoraSettings(), 1, "several processes"),
        (LoraSettings(frozen="int8"), 2, "--frozen exact"),
        (LoraSettings(in_parts="yes"), 2, "--in-parts no"),
    ):
        with pytest.raises(RequestError, match=says):
            sharded.check_shard("yes", settings, world, CPU)
    with pytest.raises(RequestError, match="not on mps"):
        sharded.check_shard("yes", LoraSettings(), 2, torch.device("mps"))
    sharded.check_shard("auto", LoraSettings(frozen="int8"), 2, CPU)
    assert sharded.take_over_fsdp("auto") == "auto"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert sharded.take_over_fsdp("auto") == "yes"
    assert "ACCELERATE_USE_FSDP" not in os.environ
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RequestError, match="leave one of them out"):
        sharded.take_over_fsdp("no")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(RequestError, match="fsdp_version to 2"):
        sharded.take_over_fsdp("auto")


@pytest.fixture(scope="module")
def released() -> Load:
    return load_for(193, LoraSettings())


def test_shares_of_the_released_model_are_counted(released: Load) -> None:
    """Eight cards of 80 GB each hold an eighth of the blocks; one alone would stream."""
    machine, settings = card(79.0), LoraSettings()
    eight = make_sharded_plan(machine, RELEASED, replace(released, batch=1), settings, "cuda", "bfloat16", 8)
    assert eight.base.fits
    assert eight.shards == 8
    assert "shared out over 8 processes" in eight.why
    whole = account(machine, RELEASED, replace(released, batch=1), start("cuda", "bfloat16", "bfloat16", "device", 1))
    assert whole.base.vram - eight.base.vram > 45 * GIB
    assert not whole.base.fits


def test_auto_shares_only_where_the_model_does_not_stand(home: Path) -> None:  # noqa: F811
    wanted = order(home, "plans")
    device = choose_device("cpu")
    assert plan_training(wanted, device, 2).shards == 1  # type: ignore[union-attr]
    assert plan_training(replace(wanted, shard="yes"), device, 2).shards == 2  # type: ignore[union-attr]
    assert plan_training(replace(wanted, shard="no"), device, 2).shards == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["one_machine", "two_machines"])
def test_our_configurations_ask_accelerate_for_fsdp2(name: str) -> None:
    """What `accelerate launch --config_file` makes of them, without launching."""
    path = Path(run.__file__).parent / "accelerate" / f"{name}.yaml"
    parsed = launch_command_parser().parse_args(["--config_file", str(path), "-m", "engine.training.cli", "lora"])
    settled = _validate_launch_command(parsed)[0]
    env = prepare_multi_gpu_env(settled)
    assert (env["ACCELERATE_USE_FSDP"], env["FSDP_VERSION"], env["FSDP_RESHARD_AFTER_FORWARD"]) == ("true", "2", "true")
    assert settled.num_machines == {"one_machine": 1, "two_machines": 2}[name]

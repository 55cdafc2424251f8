"""Out of device memory: half the slots, remembered, said once; the bytes of a run that was begun with few."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from robusteval.cli import run
from robusteval.engine import memory
from robusteval.engine.memory import OutOfMemory, half, ran_out, within
from robusteval.evidence.folder import RunFolder

# LIMIT is how many rows fit, WHERE=workers in workers alone; HOW is what is raised beyond, as the devices do. The file
# keeps its bytes.
NET = """
import multiprocessing, os
import torch

asked = []

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 5, stride=2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1152, 10)
        )

    def forward(self, x):
        asked.append(len(x))
        spared = os.environ.get("WHERE") == "workers" and multiprocessing.parent_process() is None
        if len(x) > int(os.environ.get("LIMIT", "100000")) and not spared:
            if os.environ.get("HOW") == "cpu":
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 10 bytes")
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.layers(x)

def make():
    torch.manual_seed(3)
    return Net()
"""
GIVEN = ["model=python", "model.entry=nets_of_little_memory:make", "dataset=mnist_5k", "dataset.n=96",
         "engine.chunk=48", "threat=linf_0.3", "threat.eps=0.02", "logger=none"]  # fmt: skip
PGD = ["attack=pgd", "attack.steps=4"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nets_of_little_memory").mkdir()
    (tmp_path / "nets_of_little_memory" / "__init__.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def folder_of(runs: str) -> Path:
    (found,) = Path(runs).glob("*/run.json")
    return found.parent


def outcome(runs: str) -> dict[str, Any]:
    folder = folder_of(runs)
    results = json.loads((folder / "results.json").read_text())
    results["cost"] = {key: value for key, value in results["cost"].items() if key.endswith("_passes")}
    names = [path.name for part in ("shards", "adversarials") for path in (folder / part).rglob("*.*")]
    kept = {key: value for key, value in results.items() if key not in ("provenance", "sinks")}
    return {"samples": (folder / "samples.parquet").read_bytes(), "names": sorted(names), "results": json.dumps(kept)}


@pytest.mark.parametrize(
    ("limit", "slots", "sufficed", "how", "attack"),
    [
        (16, 48, 16, "cuda", PGD),
        pytest.param(32, 40, 16, "cuda", ["attack=square", "attack.queries=20"], marks=pytest.mark.slow),
    ],
)
def test_half_the_slots_make_the_same_bytes(
    limit: int,
    slots: int,
    sufficed: int,
    how: str,
    attack: list[str],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run([*GIVEN, *attack, "engine.slots=16", "runs.dir=few"]) == 0
    capsys.readouterr()
    monkeypatch.setenv("LIMIT", str(limit))
    monkeypatch.setenv("HOW", how)
    given = [*GIVEN, *attack, f"engine.slots={slots}", "runs.dir=many"]
    assert run(given) == 0
    said = capsys.readouterr().err
    assert said.count("not enough memory") == 1
    folder = folder_of("many")
    assert json.loads((folder / "slots.json").read_text()) == {"slots": sufficed}
    assert outcome("many") == outcome("few")
    assert run(["verify", str(folder)]) == 0
    # A later process begins with what sufficed.
    import nets_of_little_memory  # pyright: ignore[reportMissingImports]

    (folder / "results.json").unlink()
    next(folder.glob("shards/*/00001-*")).unlink()
    nets_of_little_memory.asked.clear()
    assert run(given) == 0
    assert "not enough memory" not in capsys.readouterr().err
    assert max(nets_of_little_memory.asked) <= limit
    assert outcome("many") == outcome("few")


def test_memory_that_runs_out_in_the_midst_of_a_chunk(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The clean shard is written already; the stage begins again, and progress counts no sample twice.

    What was recorded for a GPU is given up first, since it takes memory too.
    """
    import nets_of_little_memory  # pyright: ignore[reportMissingImports]

    from robusteval.engine import session
    from robusteval.engine.recording import Recorder
    from robusteval.engine.search import Searcher

    forgotten = []
    monkeypatch.setattr(session, "recorder_for", lambda device: Recorder())
    monkeypatch.setattr(Recorder, "forget", lambda self: forgotten.append(self))

    assert run([*GIVEN, *PGD, "runs.dir=whole"]) == 0
    capsys.readouterr()
    original = Searcher.run

    def short(self: Searcher, *given: Any) -> Any:
        if self.slots > 16:
            self.tick(5)
            raise torch.OutOfMemoryError("in the attack's own arithmetic")
        return original(self, *given)

    monkeypatch.setattr(Searcher, "run", short)
    assert nets_of_little_memory.asked
    assert run([*GIVEN, *PGD, "engine.slots=32", "runs.dir=short"]) == 0
    said = capsys.readouterr().err
    assert "192/192" in said.splitlines()[-1]
    assert outcome("short") == outcome("whole")
    assert forgotten


@pytest.mark.slow
def test_workers_halve_too(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert run([*GIVEN, *PGD, "runs.dir=few", "engine.slots=16"]) == 0
    monkeypatch.setenv("LIMIT", "16")
    monkeypatch.setenv("WHERE", "workers")
    assert run([*GIVEN, *PGD, "runs.dir=many", "runtime.workers=2"]) == 0
    assert 1 <= capfd.readouterr().err.count("not enough memory") <= 2  # both may meet it at once
    assert outcome("many") == outcome("few")


@pytest.mark.parametrize("how", ["cuda", "cpu"])
def test_below_the_floor_there_is_one_sentence(
    how: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LIMIT", "15")
    monkeypatch.setenv("HOW", how)
    assert run([*GIVEN, *PGD]) == 1
    said = capsys.readouterr().err
    assert said.count("robusteval: ") == 1
    assert "not enough memory for 16 images at once" in said


def test_a_whole_batch_attack_is_told_about_its_chunk(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torchattacks")
    monkeypatch.setenv("LIMIT", "40")
    assert run([*GIVEN, "attack=reference/torchattacks", "attack.name=FGSM"]) == 2
    assert "set engine.chunk to fewer images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("slots", "fewer"), [(512, 256), (64, 32), (40, 16), (100, 48), (31, 16), (17, 16), (16, None)]
)
def test_halving_ends_at_sixteen(slots: int, fewer: int | None) -> None:
    assert half(slots) == fewer


def test_what_says_that_memory_ran_out() -> None:
    assert ran_out(torch.OutOfMemoryError("no"))
    assert ran_out(RuntimeError("CUDA error: out of memory"))
    assert not ran_out(RuntimeError("shapes do not match"))
    assert not ran_out(ValueError("not enough memory"))


def test_other_errors_pass_and_another_processs_slots_are_taken(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RuntimeError, match="shapes"):
        within(lambda _: (_ for _ in ()).throw(RuntimeError("shapes")), 64, folder)
    assert memory.remembered(folder) is None
    (tmp_path / "slots.json").write_text('{"slots": 32}')
    tried = []

    def attempt(slots: int) -> int:
        tried.append(slots)
        if slots > 32:
            raise OutOfMemory("no")
        return slots

    assert within(attempt, 512, folder) == 32
    assert tried == [512, 32]
    (tmp_path / "slots.json").write_text("{")
    assert memory.remembered(folder) is None

"""Tables over many runs, from their files alone."""

import csv
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from robusteval.errors import UserError
from robusteval.evidence import lock, sweeps
from robusteval.report import status, summary
from robusteval.report.runs import begun, find, look

Maker = Callable[..., dict[str, Any]]
PLAN = {"n": 500, "chunk": 256, "chunks": 2, "stages": ["clean", "pgd"]}


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., Path]:
    """Return a maker of run folders in tmp_path: with so many shards done, and results where given."""

    def make(name: str, shards: int = 0, results: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / name
        (folder / "locks").mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"plan": PLAN, "fingerprint": "f"}))
        names = [f"{stage}/{chunk:05}-abc.parquet" for stage in ("00-clean", "01-pgd") for chunk in range(2)]
        for shard in names[:shards]:
            (folder / "shards" / shard).parent.mkdir(parents=True, exist_ok=True)
            (folder / "shards" / shard).write_bytes(b"x")
        if results is not None:
            (folder / "results.json").write_text(json.dumps(results))
        return folder

    return make


def test_states_follow_from_the_files(begin: Callable[..., Path], make_results: Maker) -> None:
    done, stopped = begin("done", 4, make_results()), begin("stopped", 3)
    running, killed, broken = begin("running", 1), begin("killed", 2), begin("broken")
    gone = {"host": "elsewhere", "pid": 1, "started": "0", "slurm": None, "heartbeat": time.time() - 600}
    (killed / "locks" / "1-of-1").write_text(json.dumps(gone))
    (broken / "run.json").write_text("{")
    assert (look(done).state, look(done).done, look(done).planned) == ("done", 2, 2)
    assert (look(stopped).state, look(stopped).done) == ("incomplete", 1)  # one of its chunks lacks a stage
    assert "run its command again" in look(stopped).note
    assert (look(killed).state, look(killed).done) == ("interrupted", 0)
    assert "killed (1-of-1)" in look(killed).note
    failed = begin("failed", 3)
    (failed / "errors").mkdir()
    (failed / "errors" / "2-of-4.txt").write_text("the network has no weights\n")
    assert (look(failed).state, look(failed).done) == ("failed", 1)
    assert look(failed).note == "2-of-4: the network has no weights"
    with lock.hold(failed / "locks", "3-of-4"):
        assert look(failed).state == "running"
        assert look(failed).note.startswith("3-of-4: ")
        assert look(failed).note.endswith("failed: 2-of-4: the network has no weights")
    early = broken.parent / "early"  # it failed before it had a plan
    (early / "errors").mkdir(parents=True)
    (early / "errors" / "1-of-1.txt").write_text("no images\n")
    assert (look(early).state, look(early).planned, look(early).note) == ("failed", 0, "no images")
    assert early not in find(broken.parent)
    assert early in begun(broken.parent)
    merged = begin("shards", 4)
    assert (look(merged).state, look(merged).done) == ("incomplete", 2)
    assert "robusteval merge" in look(merged).note
    assert look(broken).state == "damaged"
    with lock.hold(running / "locks", "1-of-1"):
        assert (look(running).state, look(running).done) == ("running", 0)
        assert "process" in look(running).note
    assert look(running).state == "incomplete"


def test_status_lists_what_is_missing(
    begin: Callable[..., Path], make_results: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin("finished", 4, make_results())
    begin("half", 3)
    assert status.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    (half,) = [line for line in out.splitlines() if line.strip().startswith("half")]
    assert "incomplete" in half
    assert "1 of 2 chunks" in half
    assert out.rstrip().endswith("1 done, 1 incomplete")
    assert status.main([str(tmp_path / "half")]) == 0
    assert "finished" not in capsys.readouterr().out


def test_status_knows_what_sweeps_planned_and_their_jobs(
    begin: Callable[..., Path], make_results: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin("finished", 4, make_results())
    begin("half", 3)
    plan = [sweeps.Entry(run=name, task="1-of-1", overrides=[]) for name in ("finished", "half", "new", "queued")]
    sweeps.write(tmp_path, "plan-1", plan)
    jobs = [replace(entry, job=f"7_{number}") for number, entry in enumerate(plan) if entry.run != "new"]
    sweeps.write(tmp_path, "slurm-7", jobs)
    sweeps.write(tmp_path, "plan-2", plan[1:])  # the same again: no job is forgotten over it
    (tmp_path / sweeps.FOLDER / "odd.json").write_text("{")
    assert status.main([str(tmp_path), "--format", "csv"]) == 0
    rows = {row["run"]: row for row in csv.DictReader(capsys.readouterr().out.splitlines())}
    assert {name: row["state"] for name, row in rows.items()} == {
        "finished": "done", "half": "incomplete", "new": "missing", "queued": "missing"
    }  # fmt: skip
    assert rows["queued"]["note"] == "not begun; Slurm job 7_3"
    assert rows["half"]["note"].endswith("; Slurm job 7_1")
    assert (rows["finished"]["note"], rows["new"]["note"]) == ("", "not begun")
    assert status.main([str(tmp_path / "half")]) == 0
    out = capsys.readouterr().out
    assert "Slurm job 7_1" in " ".join(out.split())
    assert "queued" not in out


def test_summary_puts_the_most_robust_first_and_names_what_is_open(
    begin: Callable[..., Path], make_results: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weak, strong = make_results(model={"name": "weak"}), make_results(model={"name": "strong"})
    weak["robust"] = {**weak["robust"], "accuracy": {"value": 0.0, "low": 0.0, "high": 0.0158, "correct": 0, "n": 240}}
    strong["checks"] = [{"id": "nan", "verdict": "fail", "summary": ""}]
    begin("a", 4, weak)
    begin("b", 4, strong)
    begin("c", 1)
    assert summary.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in out.splitlines() if "mnist_5k" in line]
    accuracy, ece = strong["robust"]["accuracy"], strong["clean"]["calibration"]["ece"]
    assert rows[0].startswith("strong mnist_5k pgd linf 8/255 240")
    assert (
        f"{100 * accuracy['value']:.1f} % † {100 * accuracy['low']:.1f} – {100 * accuracy['high']:.1f} {ece:.3f}"
        in rows[0]
    )
    assert "0.0 % 0.0 – 1.6" in rows[1]
    assert "2 complete runs, 1 not complete" in out
    assert "† a check failed" in out
    assert max(len(line) for line in out.splitlines() if "mnist_5k" in line) <= 100


def test_a_run_at_several_radii_stands_beside_those_at_the_largest(
    begin: Callable[..., Path], make_results: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, eps in (("c", 0.5), ("a", [0.1, 0.3]), ("b", 0.3), ("d", 0.2)):
        begin(name, 4, make_results(threat={"norm": "linf", "eps": eps, "goal": "top1", "region": None}))
    assert summary.main([str(tmp_path)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "mnist_5k" in line]
    order = [next(form for form in ("0.1 … 0.3", "0.2", "0.3", "0.5") if f"linf {form} " in row) for row in rows]
    assert order == ["0.2", "0.1 … 0.3", "0.3", "0.5"]
    assert max(len(row) for row in rows) <= 100


def test_csv_has_all_digits_and_markdown_is_a_table(
    begin: Callable[..., Path], make_results: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = make_results(model={"name": "a|b, c"})
    begin("whole", 4, results)
    begin("half", 3)
    assert summary.main([str(tmp_path), "--format", "csv"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert row["model"] == "a|b, c"
    assert float(row["robust_accuracy"]) == results["robust"]["accuracy"]["value"]
    assert float(row["eps"]) == 8 / 255
    assert summary.main([str(tmp_path), "--format", "md"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("| --- | --- | --- | --- | ---: |")
    assert lines[2].startswith("| a\\|b, c | mnist_5k | pgd | linf 8/255 | 240 |")
    assert len(lines) == 3
    assert status.main([str(tmp_path), "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["run"], row["state"], row["done"], row["planned"]) for row in rows] == [
        ("half", "incomplete", "1", "2"),
        ("whole", "done", "2", "2"),
    ]
    assert status.main([str(tmp_path), "--format", "md"]) == 0
    assert "| half | incomplete | 1 of 2 chunks |" in capsys.readouterr().out


def test_empty_and_absent_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert summary.main([str(tmp_path)]) == 0
    assert "0 complete runs" in capsys.readouterr().out
    monkeypatch.setenv("ROBUSTEVAL_RUNS", str(tmp_path))
    assert status.main([]) == 0
    assert "no runs" in capsys.readouterr().out
    with pytest.raises(UserError, match="is not a folder"):
        find(tmp_path / "absent")


def test_results_of_another_schema_are_refused(begin: Callable[..., Path], make_results: Maker, tmp_path: Path) -> None:
    begin("future", 4, make_results(schema=2))
    with pytest.raises(UserError, match="schema 2, this version reads 1"):
        summary.main([str(tmp_path)])


def test_damaged_results_are_named(begin: Callable[..., Path], tmp_path: Path) -> None:
    folder = begin("damaged", 4)
    (folder / "results.json").write_text('{"schema": 1,')
    with pytest.raises(UserError, match=r"damaged/results\.json cannot be read"):
        summary.main([str(tmp_path)])

"""``make bench`` in the small: what it prints, and how it makes an interval."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.peers

BENCH = Path(__file__).parents[1] / "bench"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH), *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_rows_are_measured_and_written(tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    small = ("--n", "16", "--pairs", "2", "--steps", "3", "--queries", "3")
    done = bench("--rows", "pgd", "apgd", "aa", "--nets", "mnist_cnn", "mnist_cnn_at", "--out", str(out), *small)
    assert done.returncode == 0, done.stderr
    assert out.read_text() == done.stdout
    head, blank, names, rule, *table = done.stdout.splitlines()
    assert "1 thread" in head
    assert blank == ""
    assert names.count("|") == rule.count("|") == table[0].count("|")
    assert [row.split(" | ")[3] for row in table] == [
        "torchattacks",
        "foolbox",
        "ART",
        "pyautoattack apgd-ce",
        "pyautoattack",
    ]
    assert done.stderr.count("pair 2 of 2") == 5
    assert all("of 16" in row and "covers 50 %" in row for row in table)


def test_a_network_whose_files_are_absent_is_skipped_and_said(tmp_path: Path) -> None:
    done = bench("--rows", "apgd", "--nets", "resnet2b", "--data", str(tmp_path))
    assert done.returncode == 0
    assert "skipped resnet2b" in done.stderr
    assert "resnet2b.pth is absent" in done.stderr


def test_agreement_counts_who_stands_keeps_the_runs_and_prints_windows(tmp_path: Path) -> None:
    def agreement() -> subprocess.CompletedProcess[str]:
        arguments = ("--n", "12", "--steps", "3", "--queries", "5", "--seeds", "0", "1", "--out", str(tmp_path))
        return subprocess.run(
            [sys.executable, str(BENCH / "agreement.py"), "--cases", "mnist_l2", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    done = agreement()
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("mnist_l2, seed") == 4
    kept = {path.name: json.loads(path.read_text())["stands"] for path in tmp_path.glob("*.json")}
    assert len(kept) == 4
    assert all(len(stands) == 12 for run in kept.values() for stands in run.values())
    table = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in table] == ["| apgd-ce", "| apgd-t", "| fab-t", "| square"]
    theirs = [sum(kept[f"mnist_l2-theirs-12-3-5-{seed}.json"]["apgd-ce"]) for seed in (0, 1)]
    assert table[0][1] == " ".join(map(str, theirs))
    again = agreement()
    assert again.stdout == done.stdout
    assert "seed" not in again.stderr, "kept runs are not run again"
    path = tmp_path / "mnist_l2-ours-12-3-5-1.json"
    path.write_text(path.read_text().replace('"eps": 2.0', '"eps": 1.0'))
    once_more = agreement()
    assert once_more.stdout == done.stdout
    assert once_more.stderr.count("seed") == once_more.stderr.count("mnist_l2, seed 1, ours") == 1, "of another ball"


def test_agreement_says_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images in ten runs: the first falls to theirs alone, always, the second to ours alone, once."""
    monkeypatch.syspath_prepend(BENCH)
    module = importlib.import_module("agreement")
    theirs = {seed: {"square": [False, True, True]} for seed in range(10)}
    ours = {seed: {"square": [True, seed > 0, True]} for seed in range(10)}
    *_, row = module.table(module.CASES[0], theirs, ours)
    stand = " ".join(["2"] + ["3"] * 9)
    assert row == f"| square | {' '.join(['2'] * 10)} | {stand} | 1 – 3: 10 of 10 | 1, 10 | 0.0117 | 1, 1: 1 |"
    ours = {seed: {"square": [True, True, True]} for seed in range(10)} | {3: {"square": [False, False, False]}}
    *_, row = module.table(module.CASES[0], theirs, ours)
    assert module.table(module.CASES[0], {}, ours)[-1].endswith("| – | – | – | – |"), "no verdict out of one side"
    assert "| 1 – 3: 9 of 10 | 2, 9 | 0.0654 | 2, 1: 1 |" in row


def test_wrong_arguments_are_refused() -> None:
    assert bench("--rows", "pdg").returncode == 2
    assert bench("--pairs", "0").returncode == 2
    if not torch.cuda.is_available():
        said = bench("--device", "cuda")
        assert said.returncode == 2
        assert "--device cuda: this machine shows no CUDA device to torch; use --device cpu" in said.stderr


@pytest.mark.parametrize(("key", "value"), [("--steps", "0"), ("--n", "none"), ("--seeds", "-1")])
def test_agreement_refuses_numbers_that_make_no_sense(
    key: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("agreement").main([key, value])
    assert f"argument {key}: invalid whole value: '{value}'" in capsys.readouterr().err


@pytest.mark.parametrize(("n", "k", "covers"), [(5, 1, 0.9375), (6, 1, 0.96875), (9, 2, 0.9609375), (20, 6, 0.9586105)])
def test_the_interval_of_a_median(n: int, k: int, covers: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order statistics and their coverage as tabled, e.g. Hollander and Wolfe, and as simulated."""
    monkeypatch.syspath_prepend(BENCH)
    interval = importlib.import_module("measure").interval
    low, high, coverage = interval([float(value) for value in np.random.default_rng(0).permutation(n)])
    assert (low, high) == (k - 1, n - k)
    assert coverage == pytest.approx(covers, abs=1e-6)
    draws = np.sort(np.random.default_rng(1).random((20000, n)), axis=1)
    inside = (draws[:, k - 1] <= 0.5) & (draws[:, n - k] >= 0.5)
    assert inside.mean() == pytest.approx(covers, abs=0.006)

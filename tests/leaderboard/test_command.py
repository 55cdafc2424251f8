"""``robusteval leaderboard`` on a set of runs made up for it, in every format, and what it says of wrong input."""

import csv
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from robusteval import cli

NASTY = "<script>alert(1)</script>"


@pytest.fixture
def runs(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    """Runs beside the CIFAR-10 board: equals on 1000 images, a failed check, a zoo's that departs; and one of MNIST."""
    make_run("Wang2023Better_WRN-28-10", 6000, zoo="cifar10/Linf", clean=0.9244)
    make_run("first", np.arange(1000) < 700)
    make_run("second", np.arange(1000) < 695)
    make_run(NASTY, 500, n=1000, failed=["gradient"])
    make_run("weak", 9000, attack={"name": "pgd", "version": None})
    make_run("digits", 80, n=100, dataset="mnist_5k", threat={"eps": 0.3})
    (tmp_path / "runs" / "half").mkdir()
    (tmp_path / "runs" / "half" / "run.json").write_text((tmp_path / "runs" / "first" / "run.json").read_text())
    return tmp_path / "runs"


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable:
    monkeypatch.delenv("ROBUSTEVAL_RUNS", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments: str, code: int = 0) -> str:
        assert cli.run(["leaderboard", *arguments]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return run


def test_the_table_fits_and_says_what_is_comparable(runs: Path, answer: Callable) -> None:
    out = answer(str(runs), "--against", "robustbench")
    assert max(map(len, out.splitlines())) <= 100
    assert out.startswith("cifar10, linf 8/255, AutoAttack\n")
    lines = [line.strip() for line in out.splitlines()]
    weak = next(number for number, line in enumerate(lines) if "weak" in line)
    assert lines[weak].startswith("–")
    assert " ".join(line.split("  ")[-1].strip() for line in lines[weak : weak + 3]).endswith("an upper bound")
    (wang,) = (line for line in lines if "60.00" in line)
    assert re.match(r"\d+ +\d+–\d+ +Wang2023Better_WRN-28-10 +92.44 +60.00 ≠ +59.0–61.0", wang)
    assert re.search(rf"{re.escape(NASTY)} +95.00 +50.00 † +46.9–53.1", out)
    assert "mnist, linf 0.3, autoattack" in out
    assert "78fcc9e of 2025-03-31" in out


def test_without_against_our_runs_alone(runs: Path, answer: Callable) -> None:
    out = answer(str(runs), "--format", "json", "--dataset", "cifar10")
    boards = json.loads(out)["boards"]
    assert [(board["attack"], len(board["rows"])) for board in boards] == [("autoattack", 4), ("pgd", 1)]
    rows = {row["model"]: row for row in boards[0]["rows"]}
    assert rows["first"]["rank"] == 1
    assert rows["first"]["ties"] == [1, 2]  # 5 images of 1000, all in its favour, may still be chance
    assert boards[1]["rows"][0]["rank"] == 1


def test_boards_that_nobody_published_are_told(runs: Path, answer: Callable) -> None:
    out = answer(str(runs), "--against", "robustbench", "--dataset", "mnist")
    assert "RobustBench has published nothing on these; it has cifar10, linf 8/255, AutoAttack; cifar100" in out
    assert max(map(len, out.splitlines())) <= 100
    assert "published nothing" not in answer(str(runs), "--dataset", "mnist")
    assert "published nothing" not in answer(str(runs), "--against", "robustbench")


def test_json_has_every_row_with_all_digits(runs: Path, answer: Callable) -> None:
    content = json.loads(answer(str(runs), "--against", "robustbench", "--format", "json"))
    assert content["schema"] == 1
    assert content["published"]["commit"].startswith("78fcc9e")
    board, mnist = content["boards"]
    assert (board["dataset"], board["norm"], board["eps"], board["n"]) == ("cifar10", "linf", 8 / 255, 10_000)
    assert (mnist["dataset"], mnist["n"], len(mnist["rows"])) == ("mnist", None, 1)
    assert len(board["rows"]) == 99 + 5
    rows = {(row["model"], row["origin"]): row for row in board["rows"]}
    best = rows["Bartoldson2024Adversarial_WRN-94-16", "robustbench"]
    assert (best["rank"], best["robust_accuracy"], best["run"]) == (1, 0.7371, None)
    external = rows["Kang2021Stable", "robustbench"]
    assert (external["by"], external["autoattack_accuracy"], external["robust_accuracy"]) == ("external", 0.7128, 0.642)
    ours = rows["Wang2023Better_WRN-28-10", "ours"]
    assert ours["disagrees"] == ["robust 60.00 %, but its entry says 67.31 %: more than sampling"]
    assert (rows["weak", "ours"]["rank"], rows["weak", "ours"]["ties"]) == (None, None)
    assert rows[NASTY, "ours"]["failed"] == ["failed checks: gradient"]
    first = rows["first", "ours"]
    assert first["ties"][0] < first["rank"] <= first["ties"][1]
    assert first["differences"] == ["n=1000, not 10000"]
    ranked = [row for row in board["rows"] if row["rank"] is not None]
    assert [row["rank"] for row in ranked] == sorted(row["rank"] for row in ranked)


def test_csv_and_markdown_hold_the_same(runs: Path, answer: Callable) -> None:
    given = ("--against", "robustbench", "--dataset", "cifar10")
    board = json.loads(answer(str(runs), *given, "--format", "json"))["boards"][0]
    rows = list(csv.DictReader(io.StringIO(answer(str(runs), *given, "--format", "csv"))))
    assert [row["model"] for row in rows] == [row["model"] for row in board["rows"]]
    assert [float(row["robust_accuracy"]) for row in rows] == [row["robust_accuracy"] for row in board["rows"]]
    assert [row["tie_low"] for row in rows] == [str((row["ties"] or [""])[0]) for row in board["rows"]]
    text = answer(str(runs), *given, "--format", "md")
    assert text.startswith("## cifar10, linf 8/255, AutoAttack\n\n| rank | ties | model |")
    assert "| **Wang2023Better_WRN-28-10** | 92.44 | 60.00 ≠ |" in text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == len(rows) + 2


class Tags(HTMLParser):
    """Notes tags with their attributes, and the text of the cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_the_page_is_whole_and_asks_nobody(runs: Path, answer: Callable) -> None:
    page = answer(str(runs), "--against", "robustbench", "--format", "html")
    found = Tags()
    found.feed(page)
    names = [tag for tag, _ in found.tags]
    assert names.count("script") == 1  # a model's name is not one
    assert any(NASTY in cell for cell in found.cells)
    assert names.count("tr") == 2 + 99 + 6
    assert not {"img", "iframe", "object"} & set(names)
    assert not any("src" in attributes for _, attributes in found.tags)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp", page)
    outside = {attributes["href"] for _, attributes in found.tags if "href" in attributes}
    assert all(address.startswith("https://") for address in outside - {"data:,"})
    assert {attributes["href"] for tag, attributes in found.tags if tag == "link"} == {"data:,"}
    assert len(page) < 200_000
    assert {"60.00 ≠", "50.00 †", "64.20 †"} <= {cell.strip() for cell in found.cells}


def test_without_a_run_the_published_boards_alone(answer: Callable, tmp_path: Path) -> None:
    boards = json.loads(answer("--format", "json"))["boards"]
    assert [(board["dataset"], board["norm"], len(board["rows"])) for board in boards] == [
        *(("cifar10", "linf", 99), ("cifar100", "linf", 38), ("imagenet", "linf", 30), ("cifar10", "corruptions", 23)),
        *(("cifar10", "l2", 21), ("cifar100", "corruptions", 13), ("imagenet", "corruptions", 12)),
    ]
    (board,) = json.loads(answer("--format", "json", "--threat", "l2_0.5"))["boards"]
    assert (board["dataset"], board["norm"]) == ("cifar10", "l2")
    out = answer("--threat", "corruptions", "--dataset", "imagenet")
    assert "Tian2022Deeper_DeiT-B" in out.splitlines()[4]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["--threat", "lin"], "--threat lin is not known"),
        (["--dataset", "mnist"], "no run and no published board is of mnist"),
        (["--format", "model_info"], "no folder has 0 complete; name one RUN"),
    ],
)
def test_wrong_input_is_told(answer: Callable, arguments: list[str], said: str) -> None:
    assert said in answer(*arguments, code=2)


def test_a_run_that_cannot_be_read_is_told_and_the_others_are_shown(
    runs: Path, answer: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "second" / "results.json").write_text("{")
    assert cli.run(["leaderboard", str(runs)]) == 2
    said = capsys.readouterr()
    assert "first" in said.out
    assert "second/results.json cannot be read" in said.err


def test_one_run_in_robustbenchs_form(runs: Path, answer: Callable) -> None:
    """The fields of model_info/DATASET/THREAT/NAME.json, accuracies as text in per cent."""
    written = json.loads(answer(str(runs / "Wang2023Better_WRN-28-10"), "--format", "model_info"))
    assert list(written) == [
        *("link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture"),
        *("eps", "clean_acc", "reported", "autoattack_acc", "footnote", "unreliable"),
    ]
    assert (written["clean_acc"], written["autoattack_acc"], written["eps"]) == ("92.44", "60.00", "8/255")
    assert (written["dataset"], written["architecture"], written["venue"]) == (
        "cifar10",
        "WideResNet-28-10",
        "ICML 2023",
    )
    assert "95 % interval 59.04 to 60.96 % of n=10000" in written["footnote"]
    assert written["unreliable"] is False
    mine = json.loads(answer(str(runs / "first"), "--format", "model_info"))
    assert (mine["link"], mine["architecture"], mine["number_forward_passes"]) == (None, None, 1)
    assert "n=1000, not 10000" in mine["footnote"]
    for name, why in (("weak", "pgd, not AutoAttack"), ("digits", "no board is of mnist and linf")):
        assert why in answer(str(runs / name), "--format", "model_info", code=2)
    assert "has 6 complete; name one RUN" in answer(str(runs), "--format", "model_info", code=2)

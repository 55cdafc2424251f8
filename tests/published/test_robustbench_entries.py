"""The published entries: the same numbers as in the file they came with, and the order of RobustBench's own tables."""

import csv
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from robusteval.leaderboard.protocol import apart
from robusteval.published import protocol, robustbench
from robusteval.published.robustbench import IMAGES, board, boards, entries, imagenet_pictures, zoo

HERE = Path(__file__).parent
GOLDEN = Path(__file__).parents[3] / "shared" / "data" / "goldens" / "robustbench_model_info.csv"
ORDER = json.loads((HERE / "order_of_readme.json").read_text())


@pytest.mark.skipif(not GOLDEN.is_file(), reason="../shared/data is absent")
def test_every_entry_has_the_numbers_of_the_golden_file() -> None:
    golden = {(row["dataset"], row["threat_model"], row["model"]): row for row in csv.DictReader(GOLDEN.open())}
    assert len(golden) == 236
    assert {(entry.dataset, entry.threat, entry.name) for entry in entries()} == golden.keys()
    for entry in entries():
        row = golden[entry.dataset, entry.threat, entry.name]
        for key in ("clean_acc", "autoattack_acc", "external", "corruptions_acc", "corruptions_mce"):
            assert getattr(entry, key) == (float(row[key]) if row[key] else None), (entry.name, key)
        assert (entry.eps or "", entry.architecture) == (row["eps"], row["architecture"])
        assert entry.unreliable == {"": None, "True": True, "False": False}[row["unreliable"]]


def test_the_file_says_where_it_comes_from() -> None:
    facts = robustbench.facts()
    assert facts["source"] == "https://github.com/RobustBench/robustbench"
    assert re.fullmatch(r"[0-9a-f]{40}", facts["commit"])
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", facts["read"])
    assert facts["licence"].startswith("MIT")


def test_every_entry_is_whole() -> None:
    assert len(entries()) == len({(entry.dataset, entry.threat, entry.name) for entry in entries()}) == 236
    counted = {pair: len(board(*pair)) for pair in boards()}
    assert [*counted.items()][:3] == [(("cifar10", "Linf"), 99), (("cifar100", "Linf"), 38), (("imagenet", "Linf"), 30)]
    assert sum(counted.values()) == 236
    assert len(zoo()) == 206
    for entry in entries():
        assert 0 <= entry.accuracy <= entry.clean_acc <= 100
        assert (entry.corruptions_acc is None) == (entry.threat != "corruptions") == (entry.autoattack_acc is not None)
        if entry.external is not None:
            assert entry.external <= (entry.autoattack_acc or 0)
        if entry.threat != "corruptions":
            usual = protocol.usual(entry.dataset, entry.threat.lower())
            assert entry.radius == usual or entry.eps == "0.031"


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "imagenet"])
def test_the_order_is_that_of_robustbenchs_own_tables(dataset: str) -> None:
    """Of the three largest boards, external first, as its README lists the zoo; equal accuracies in any order."""
    ours = [entry for entry in board(dataset, "Linf") if entry.zoo]
    theirs = iter(ORDER[dataset])
    for _, equal in itertools.groupby(ours, key=lambda entry: entry.accuracy):
        names = {entry.name for entry in equal}
        assert set(itertools.islice(theirs, len(names))) == names
    assert next(theirs, None) is None


def test_external_ranks_before_autoattack() -> None:
    names = [entry.name for entry in board("cifar10", "Linf")]
    kang = robustbench.find("cifar10", "Linf", "Kang2021Stable")
    assert kang is not None
    assert (kang.autoattack_acc, kang.external, kang.unreliable) == (71.28, 64.2, True)
    assert names.index("Kang2021Stable") > names.index("Wang2023Better_WRN-28-10")  # 67.31


@pytest.mark.parametrize(
    ("pair", "within", "of"),
    [
        (("cifar10", "Linf"), 83, 98),
        (("cifar100", "Linf"), 32, 37),
        (("imagenet", "Linf"), 21, 29),
        (("cifar10", "L2"), 12, 20),
    ],
)
def test_most_neighbours_are_ties(pair: tuple[str, str], within: int, of: int) -> None:
    """How many neighbours differ by less than the unpaired 95 % sampling error, counted once by other code.

    Which did not count two networks that break on every image, as nothing is less than an error of nothing.
    """
    n = IMAGES[pair[0]]
    neighbours = [*itertools.pairwise(entry.accuracy / 100 for entry in board(*pair))]
    assert len(neighbours) == of
    assert sum(not apart(p, n, q, n) for p, q in neighbours if p) == within


def test_the_pictures_of_imagenet() -> None:
    numbers = imagenet_pictures()
    assert len(numbers) == len(set(numbers)) == 5000
    assert list(numbers) == sorted(numbers)
    assert (numbers[0], numbers[-1]) == (11, 49999)
    assert {15253, 20685, 39611, 4059, 29201} <= set(numbers)  # the first five lines of RobustBench's list


def test_a_refresh_reads_what_is_there(tmp_path: Path) -> None:
    """The reader on a small repository of the same layout."""
    zoo_folder = tmp_path / "robustbench" / "model_zoo"
    zoo_folder.mkdir(parents=True)
    (zoo_folder / "cifar10.py").write_text(
        "import nothing_that_exists\nlinf = OrderedDict([('A', {'model': lambda: 1})])\nl2 = OrderedDict([('B', {})])\n"
    )
    for dataset in ("cifar100", "imagenet"):
        (zoo_folder / f"{dataset}.py").write_text("common_corruptions = OrderedDict([])\n")
    info = {
        "link": "l",
        "name": "t",
        "venue": "v",
        "architecture": "a",
        "additional_data": True,
        "number_forward_passes": 1,
        "eps": "8/255",
        "clean_acc": "90.10",
        "reported": "null",
        "autoattack_acc": "50.0",
    }
    for name, more in (("A", {"external": "40.5", "unreliable": True, "footnote": "words"}), ("C", {})):
        file = tmp_path / "model_info" / "cifar10" / "Linf" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(info | more))
    ids = tmp_path / "robustbench" / "helper_files" / "imagenet_test_image_ids.txt"
    ids.parent.mkdir()
    ids.write_text("n02823750/ILSVRC2012_val_00020685.JPEG\nn09468604/ILSVRC2012_val_00000011.JPEG\n")
    for arguments in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    target = tmp_path / "out.json"
    code = (
        "import sys, pathlib; from robusteval.published import refresh; refresh.FILE = pathlib.Path(sys.argv[1]); "
        "refresh.main([sys.argv[2]])"
    )
    subprocess.run([sys.executable, "-c", code, str(target), str(tmp_path)], check=True)
    found = json.loads(target.read_text())["entries"]
    assert [(entry["name"], entry["zoo"], entry.get("external")) for entry in found] == [
        ("A", True, 40.5),
        ("C", False, None),
    ]
    assert "footnote" not in found[0]
    assert json.loads(target.with_name("imagenet_5000.json").read_text())["pictures"] == [11, 20685]


def test_a_dataset_belongs_to_a_family() -> None:
    assert [protocol.family(name) for name in ("cifar10_samples", "mnist_5k", "imagenet")] == [
        "cifar10",
        "mnist",
        "imagenet",
    ]
    assert protocol.usual("imagenet_samples", "linf") == 4 / 255
    assert protocol.usual("mnist", "l2") is None

"""Reads RobustBench's facts anew: ``python -m robusteval.published.refresh CHECKOUT`` of its repository, with git.

For the writers of this package. Takes numbers, names and links; the footnotes, which are sentences, stay there.
"""

import argparse
import ast
import datetime
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robusteval.published.robustbench import FILE

_NUMBERS = (
    *("clean_acc", "autoattack_acc", "external"),
    *("corruptions_acc", "corruptions_mce", "corruptions_acc_3d", "corruptions_mce_3d"),
)
_PLAIN = {"name": "title", "link": "link", "venue": "venue", "architecture": "architecture"}
_IDS = Path("robustbench/helper_files/imagenet_test_image_ids.txt")
_LICENCE = "MIT, copyright (c) 2020 Francesco Croce, Maksym Andriushchenko, Vikash Sehwag"
# What the dictionaries of the zoo's models are called in each module, by the name of the threat.
_TABLES = {"linf": "Linf", "l2": "L2", "common_corruptions": "corruptions"}


def main(argv: Sequence[str] | None = None) -> None:
    """Write robustbench.json, and the list of ImageNet's pictures that RobustBench uses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    checkout: Path = parser.parse_args(argv).checkout
    header = {
        "source": "https://github.com/RobustBench/robustbench",
        "commit": _git(checkout, "rev-parse", "HEAD"),
        "committed": _git(checkout, "show", "-s", "--format=%cs", "HEAD"),
        "read": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "licence": _LICENCE,
    }
    zoo = _zoo(checkout)
    files = sorted(checkout.glob("model_info/*/*/*.json"))
    _write(FILE, {**header, "files": "model_info/*/*/*.json, robustbench/model_zoo"}, [_entry(f, zoo) for f in files])
    pictures = sorted(int(Path(line).stem.rpartition("_")[2]) for line in (checkout / _IDS).read_text().split())
    _write(FILE.with_name("imagenet_5000.json"), {**header, "files": str(_IDS)}, pictures, "pictures")


def _entry(file: Path, zoo: set[tuple[str, str, str]]) -> dict[str, Any]:
    dataset, threat = file.parts[-3:-1]
    given = json.loads(file.read_text(encoding="utf-8"))
    entry = {"dataset": dataset, "threat": threat, "name": file.stem, "zoo": (dataset, threat, file.stem) in zoo}
    entry |= {ours: given[theirs] for theirs, ours in _PLAIN.items()}
    entry |= {key: given[key] for key in ("additional_data", "number_forward_passes", "eps")}
    entry |= {key: float(given[key]) for key in _NUMBERS if given.get(key)}
    return entry | ({"unreliable": given["unreliable"]} if "unreliable" in given else {})


def _zoo(checkout: Path) -> set[tuple[str, str, str]]:
    """Return (dataset, threat, name) of every model whose weights the zoo has, read from its source without running it.

    The tables are ``OrderedDict([(name, {...}), ...])``, one a threat, in one module a dataset.
    """
    found = set()
    for dataset in ("cifar10", "cifar100", "imagenet"):
        module = ast.parse((checkout / "robustbench" / "model_zoo" / f"{dataset}.py").read_text(encoding="utf-8"))
        for node in module.body:
            match node:
                case ast.Assign(targets=[ast.Name(id=table)], value=ast.Call(args=[ast.List(elts=pairs)])) if (
                    table in _TABLES
                ):
                    found |= {(dataset, _TABLES[table], ast.literal_eval(pair.elts[0])) for pair in pairs}  # pyright: ignore[reportAttributeAccessIssue]
    return found


def _write(path: Path, header: dict[str, Any], items: list[Any], key: str = "entries") -> None:
    """Write JSON with one line an entry, twenty numbers a line, so that a change can be read."""
    lines = [json.dumps(item) for item in items]
    if key != "entries":
        lines = [", ".join(lines[start : start + 20]) for start in range(0, len(lines), 20)]
    body = ",\n".join(f"    {line}" for line in lines)
    head = "".join(f"  {json.dumps(name)}: {json.dumps(value)},\n" for name, value in header.items())
    path.write_text(f"{{\n{head}  {json.dumps(key)}: [\n{body}\n  ]\n}}\n", encoding="utf-8")


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(checkout), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()

"""``robusteval list``: what can be named, one line each."""

import argparse
import itertools
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from robusteval.errors import UserError
from robusteval.groups import CONF, groups
from robusteval.published import robustbench
from robusteval.report.console import terminal

_KINDS = {
    "models": "model",
    "datasets": "dataset",
    "attacks": "attack",
    "transforms": "transform",
    "experiments": "experiment",
}


def main(argv: Sequence[str]) -> int:
    """Print names and what they are; ``list models PATTERN`` also searches torchvision's, timm's and the zoo's."""
    parser = argparse.ArgumentParser(prog="robusteval list", description="What can be named in an evaluation.")
    parser.add_argument("kind", nargs="?", choices=[*_KINDS], help="only these")
    parser.add_argument(
        "pattern",
        nargs="?",
        help="only names that contain this; for models torchvision's, timm's and RobustBench's too",
    )
    given = parser.parse_args(argv)
    console, found = terminal(), False
    for kind in [given.kind] if given.kind else _KINDS:
        names = [name for name in groups()[_KINDS[kind]] if given.pattern is None or given.pattern in name]
        lines = _architectures(given.pattern) if kind == "models" else []
        zoo = _zoo(given.pattern) if kind == "models" and given.kind else []
        if not names and not lines and not zoo:
            continue
        found = True
        table = Table(kind, "", box=None, pad_edge=False)
        for name in names:
            table.add_row(escape(name), escape(_comment(_KINDS[kind], name)))
        if names:
            console.print(table)
        for line in lines:
            console.print(escape(line), soft_wrap=True)
        for heading, board in zoo:
            console.print(f"\n{escape(heading)}", soft_wrap=True)
            console.print(board)
        console.print()
    if not found:
        raise UserError(f"none of the {given.kind or 'names'} contains '{given.pattern}'; robusteval list shows all")
    return 0


def _comment(group: str, name: str) -> str:
    """Return the comment at the top of a configuration, on one line."""
    lines = (CONF / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(
        line.removeprefix("#").strip()
        for line in itertools.takewhile(lambda line: line.startswith("#"), lines)
        if not line.startswith("# @package")
    )


def _architectures(pattern: str | None) -> list[str]:
    if pattern is None:
        return [
            "any torchvision name: model=torchvision model.name=NAME; any timm name: model=timm model.name=NAME",
            "any network of RobustBench's zoo: model=robustbench model.name=NAME dataset=cifar10 threat=linf",
            "(robusteval list models names the zoo's, robusteval list models PATTERN searches all)",
        ]
    if pattern.startswith("robustbench"):
        return []
    import timm
    import torchvision

    names = [
        f"model=torchvision model.name={name}" for name in torchvision.models.list_models(module=torchvision.models)
    ]
    names += [f"model=timm model.name={name}" for name in timm.list_models(pretrained=True)]
    return [name for name in names if pattern in name.rpartition("=")[2]]


def _zoo(pattern: str | None) -> list[tuple[str, Table]]:
    """Return for each board of RobustBench's zoo how to name its networks, and those that match, as published."""
    tables = []
    for dataset, threat in robustbench.boards():
        ours = next(own for own, theirs in robustbench.THREATS.items() if theirs == threat)
        corrupted = ours == "corruptions"
        table = Table(box=None, pad_edge=False)
        table.add_column("NAME", no_wrap=True)
        for heading in ("clean %", "corrupted %" if corrupted else "robust %"):
            table.add_column(heading, justify="right", no_wrap=True)
        for heading in (*(() if corrupted else ("by",)), "architecture"):
            table.add_column(heading)
        for entry in robustbench.board(dataset, threat):
            if entry.zoo and (pattern or "").lower() in f"robustbench {dataset} {ours} {entry.name}".lower():
                by = () if corrupted else ("AutoAttack" if entry.external is None else "external",)
                numbers = (f"{entry.clean_acc:.2f}", f"{entry.accuracy:.2f}")
                table.add_row(*map(escape, (entry.name, *numbers, *by, entry.architecture)))
        if table.row_count:
            where = "model.threat=corruptions" if corrupted else f"threat={ours}"
            tables.append((f"model=robustbench dataset={dataset} {where} model.name=NAME", table))
    return tables

"""``robusteval list``: what can be named, one line each."""

import argparse
from collections.abc import Sequence

from rich.table import Table

from robusteval.groups import CONF, groups
from robusteval.report.console import terminal

_KINDS = {"models": "model", "datasets": "dataset", "attacks": "attack"}


def main(argv: Sequence[str]) -> int:
    """Print names and what they are; ``list models PATTERN`` also searches torchvision's and timm's names."""
    parser = argparse.ArgumentParser(prog="robusteval list", description="What can be named in an evaluation.")
    parser.add_argument("kind", nargs="?", choices=[*_KINDS], help="only these")
    parser.add_argument(
        "pattern", nargs="?", help="only names that contain this; for models torchvision's and timm's too"
    )
    given = parser.parse_args(argv)
    console = terminal()
    for kind in [given.kind] if given.kind else _KINDS:
        table = Table(kind, "", box=None, pad_edge=False)
        for name, words in _entries(_KINDS[kind]):
            if given.pattern is None or given.pattern in name:
                table.add_row(name, words)
        console.print(table)
        if kind == "models":
            for line in _architectures(given.pattern):
                console.print(line, soft_wrap=True)
        console.print()
    return 0


def _entries(group: str) -> list[tuple[str, str]]:
    return [(name, _first_comment(group, name)) for name in groups()[group]]


def _first_comment(group: str, name: str) -> str:
    first = (CONF / group / f"{name}.yaml").read_text().splitlines()[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _architectures(pattern: str | None) -> list[str]:
    if pattern is None:
        return [
            "any torchvision name: model=torchvision model.name=NAME; any timm name: model=timm model.name=NAME",
            "(robusteval list models PATTERN searches both)",
        ]
    import timm
    import torchvision

    names = [
        f"model=torchvision model.name={name}" for name in torchvision.models.list_models(module=torchvision.models)
    ]
    names += [f"model=timm model.name={name}" for name in timm.list_models(pretrained=True)]
    return [name for name in names if pattern in name.rpartition("=")[2]]

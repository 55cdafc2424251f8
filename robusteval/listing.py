"""``robusteval list``: what can be named, one line each."""

import argparse
import itertools
from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from robusteval.errors import UserError
from robusteval.groups import CONF, groups
from robusteval.report.console import terminal

_KINDS = {"models": "model", "datasets": "dataset", "attacks": "attack", "transforms": "transform"}


def main(argv: Sequence[str]) -> int:
    """Print names and what they are; ``list models PATTERN`` also searches torchvision's and timm's names."""
    parser = argparse.ArgumentParser(prog="robusteval list", description="What can be named in an evaluation.")
    parser.add_argument("kind", nargs="?", choices=[*_KINDS], help="only these")
    parser.add_argument(
        "pattern", nargs="?", help="only names that contain this; for models torchvision's and timm's too"
    )
    given = parser.parse_args(argv)
    console, found = terminal(), False
    for kind in [given.kind] if given.kind else _KINDS:
        names = [name for name in groups()[_KINDS[kind]] if given.pattern is None or given.pattern in name]
        lines = _architectures(given.pattern) if kind == "models" else []
        if not names and not lines:
            continue
        found = True
        table = Table(kind, "", box=None, pad_edge=False)
        for name in names:
            table.add_row(escape(name), escape(_comment(_KINDS[kind], name)))
        console.print(table)
        for line in lines:
            console.print(escape(line), soft_wrap=True)
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
            "(robusteval list models PATTERN searches both)",
        ]
    import timm
    import torchvision

    names = [
        f"model=torchvision model.name={name}" for name in torchvision.models.list_models(module=torchvision.models)
    ]
    names += [f"model=timm model.name={name}" for name in timm.list_models(pretrained=True)]
    return [name for name in names if pattern in name.rpartition("=")[2]]

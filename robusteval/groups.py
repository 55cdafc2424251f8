"""Which configurations can be named, and what to say about one that cannot. Imports neither Hydra nor torch."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from robusteval.errors import did_you_mean

CONF = Path(__file__).parent / "conf"

# Hydra's own, and the defaults of a cluster (site/slurm.yaml), which its launcher's file takes in by itself.
_NO_GROUPS = ("hydra", "site")

Groups = Mapping[str, list[str]]


def groups(config_dir: str | None = None) -> dict[str, list[str]]:
    """Return every group with its options, the package's and those of a user's folder, sub-folders included."""
    found: dict[str, set[str]] = {"experiment": set()}  # the package's own is empty, which git does not keep
    own = own_folder()
    for root in (CONF, *([] if own is None else [own]), *([] if config_dir is None else [Path(config_dir)])):
        for folder in root.iterdir():
            if folder.is_dir() and folder.name not in _NO_GROUPS and not folder.name.startswith((".", "__")):
                options = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
                found.setdefault(folder.name, set()).update(option.as_posix() for option in options)
    return {name: sorted(options) for name, options in sorted(found.items())}


def own_folder() -> Path | None:
    """Return the user's folder of configurations, by default ~/.config/robusteval; None where there is none."""
    folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "robusteval"
    return folder if folder.is_dir() else None


def no_option(group: str, name: str, known: Groups) -> str:
    """Return the sentence for an option that its group does not have."""
    there = f"known: {', '.join(known[group])}" if known[group] else "there is none; give yours with --config-dir"
    inside = [option for option in known[group] if option.endswith(f"/{name}")]
    near = f"; did you mean '{inside[0]}'?" if inside else did_you_mean(name, known[group])
    sentence = f"no {group} named '{name}'{near} ({there})"
    if group == "model" and re.fullmatch(r"\w[\w.]*", name):
        others = " or ".join(f"model={library} model.name={name}" for library in ("torchvision", "timm"))
        sentence += f"; any torchvision or timm name works as {others}"
    return sentence

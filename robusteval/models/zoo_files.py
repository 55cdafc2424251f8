"""Where the zoo's weights lie on this machine, and where they come from: Google Drive, for a few a plain address."""

from dataclasses import dataclass
from pathlib import Path

from robusteval.downloads import download
from robusteval.models import hub, zoo

# Google's address for the file itself; "confirm" answers its question whether a large file is wanted without a scan.
DRIVE = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"
CACHE = "~/.cache/robusteval/robustbench"
_THEIRS = "models"  # where RobustBench keeps them unless told otherwise


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of weights: where it may lie, in order of preference, and its address."""

    looked: tuple[Path, ...]
    url: str

    @property
    def found(self) -> Path | None:
        return next((path for path in self.looked if path.is_file()), None)


def places(recipe: zoo.Recipe, folder: str | None) -> list[File]:
    """Return the files of a network, in RobustBench's layout below ``folder``, else below ./models and a cache."""
    roots = [Path(folder)] if folder is not None else [Path(_THEIRS), Path(CACHE)]
    below = [root.expanduser() / recipe.dataset / recipe.threat for root in roots]
    if not recipe.ids:
        own = tuple(root / f"{recipe.name}.pt" for root in below)
        config = zoo.address(recipe)
        cached = hub.cached(config)
        return [File(looked=own if cached is None else (*own, cached), url=str(config["url"]))]
    names = [f"{recipe.name}.pt_m{number}.pt" for number in range(len(recipe.ids))] if recipe.several else None
    return [
        File(looked=tuple(root / name for root in below), url=DRIVE.format(identity))
        for name, identity in zip(names or [f"{recipe.name}.pt"], recipe.ids, strict=True)
    ]


def fetch(file: File) -> Path:
    """Return the file's path, downloaded to where it is looked for last where it is nowhere.

    Raises UserError where the download fails or brings a web page: of a login, or of a quota that is used up.
    """
    return file.found or download(file.url, file.looked[-1])

"""Networks of RobustBench's model zoo (Croce et al. 2021, https://arxiv.org/abs/2010.09670) by name."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robusteval.classifier import Classifier, Preprocessing
from robusteval.datasets import names
from robusteval.errors import UserError, did_you_mean
from robusteval.models import zoo
from robusteval.models.assemble import assemble
from robusteval.models.torchvision import Torchvision
from robusteval.models.zoo_files import fetch, places
from robusteval.published import robustbench as published
from robusteval.published.protocol import family

# How pictures become inputs, by what the zoo calls it.
_PREPROCESSING = {
    "Res256Crop224": Preprocessing(resize=256, crop=(224, 224)),
    "BicubicRes256Crop224": Preprocessing(resize=256, crop=(224, 224), interpolation="bicubic"),
    "Crop288": Preprocessing(crop=(288, 288)),
    "Res224": Preprocessing(resize=(224, 224)),
}
_CIFAR_SIZE = (3, 32, 32)
_CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}


@dataclass(frozen=True, kw_only=True)
class RobustBench:
    """A network of the zoo. ``dataset`` and ``threat`` say which of the zoo's boards ``name`` is on.

    They follow the run's (any of its names: cifar10_samples is CIFAR-10) unless set. With a threat that the zoo does
    not have, the board is the only one that has the name. ``dir`` is laid out as RobustBench's own model_dir,
    DIR/cifar10/Linf/NAME.pt; without it ./models is looked up, then a cache, into which weights are downloaded.
    """

    source: Literal["robustbench"] = "robustbench"
    name: str
    dataset: str
    threat: str
    dir: str | None = None

    def __post_init__(self) -> None:
        if self.name == "???":  # what the configuration file has where the user must choose
            raise UserError(
                "model=robustbench needs model.name=NAME, such as Wang2023Better_WRN-28-10; robusteval list models "
                "robustbench names all"
            )
        _ = self.board

    @property
    def board(self) -> tuple[str, str]:
        """The (dataset, threat) as RobustBench calls them. Raises UserError where the zoo has no such name there."""
        dataset = family(self.dataset)
        if dataset not in published.DATASETS:
            raise UserError(
                f"model.dataset={self.dataset} is none of RobustBench's; say which the network was made for, as in "
                f"model.dataset=cifar10 ({', '.join(published.DATASETS)})"
            )
        on = [(entry.dataset, entry.threat) for entry in published.zoo() if entry.name == self.name]
        threat = published.THREATS.get(self.threat)
        if (dataset, threat) in on:
            return dataset, str(threat)
        here = [board for board in on if board[0] == dataset]
        if threat is None and len(here) == 1:
            return here[0]
        if zoo.installed() and threat is not None and self.name in zoo.names(dataset, threat):
            return dataset, threat  # newer than what is known here
        raise UserError(self._elsewhere(dataset, threat, on))

    def missing(self) -> str | None:
        """Return a sentence where RobustBench's architectures or the weights are not on this machine."""
        if self._torchvisions:
            return self._standard().missing()
        if sentence := zoo.trouble():
            return sentence
        files = places(zoo.recipe(*self.board, self.name), self.dir)
        if all(file.found for file in files):
            return None
        looked = " or ".join(str(path) for path in files[0].looked)
        return (
            f"the weights of {self.name} are not at {looked}; connect to the internet to download them, or name the "
            "folder that holds them with model.dir=DIR"
        )

    def load(self) -> Classifier:
        """Return the classifier, downloading its weights where they are not there yet.

        Raises UserError: RobustBench is not installed or not the real one, files that are no weights or do not fit.
        """
        dataset, threat = self.board
        origin = f"{self.source} {dataset}/{threat}"
        if self._torchvisions:
            return dataclasses.replace(self._standard().load(), name=self.name, source=origin)
        if sentence := zoo.trouble():
            raise UserError(sentence)
        recipe = zoo.recipe(dataset, threat, self.name)
        files = [fetch(file) for file in places(recipe, self.dir)]
        network = zoo.build(recipe)
        zoo.fill(network, files)
        preprocessing = self._preprocessing(recipe)
        classes = _CLASSES[dataset]
        return assemble(
            network,
            name=self.name,
            source=origin,
            classes=classes,
            input_size=_CIFAR_SIZE
            if preprocessing.crop is None and preprocessing.resize is None
            else _size(preprocessing),
            class_names=_class_names(dataset),
            preprocessing=preprocessing,
        )

    @property
    def _torchvisions(self) -> bool:
        """Whether the network is torchvision's own, which needs nothing of RobustBench."""
        return self.board[0] == "imagenet" and self.name == "Standard_R50"

    def _standard(self) -> Torchvision:
        own = None if self.dir is None else Path(self.dir).expanduser().joinpath(*self.board, f"{self.name}.pt")
        return Torchvision(name="resnet50", weights="IMAGENET1K_V1" if own is None or not own.is_file() else str(own))

    def _preprocessing(self, recipe: zoo.Recipe) -> Preprocessing:
        if recipe.dataset != "imagenet":
            return Preprocessing()
        stated = recipe.preprocessing or zoo.stated(recipe)
        if isinstance(stated, Preprocessing):
            return stated
        if stated not in _PREPROCESSING:
            raise UserError(
                f"model.name={self.name}: the installed robustbench prepares its pictures by '{stated}', which is not "
                "known here; choose another network"
            )
        return _PREPROCESSING[stated]

    def _elsewhere(self, dataset: str, threat: str | None, on: list[tuple[str, str]]) -> str:
        """Return the sentence for a name that is not on the board, or on no single one."""
        if not on:
            known = [entry.name for entry in published.zoo(dataset)]
            return (
                f"model.name={self.name} is not in RobustBench's zoo{did_you_mean(self.name, known)} (robusteval list "
                "models robustbench names all)"
            )
        ours = {theirs: own for own, theirs in published.THREATS.items()}
        if all(where != dataset for where, _ in on):
            there = ", ".join(f"{where} ({ours[norm]})" for where, norm in on)
            return (
                f"model.name={self.name} is in RobustBench's zoo for {there}, not for {dataset}; set "
                f"dataset={on[0][0]}, or choose another name"
            )
        choices = " or ".join(f"model.threat={ours[norm]}" for where, norm in on if where == dataset)
        return (
            f"model.name={self.name}: RobustBench's zoo has no network of that name for {dataset} and threat "
            f"{self.threat}; set {choices}"
        )


def _size(preprocessing: Preprocessing) -> tuple[int, int, int]:
    size = preprocessing.crop or preprocessing.resize
    return (3, *size) if isinstance(size, tuple) else (3, int(size or 0), int(size or 0))


def _class_names(dataset: str) -> tuple[str, ...]:
    # The same names as the dataset's, so that their order can be compared.
    return {"cifar10": names.CIFAR10, "cifar100": names.CIFAR100}.get(dataset) or names.imagenet_names()

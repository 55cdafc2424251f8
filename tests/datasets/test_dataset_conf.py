"""Every registered dataset has a configuration file that says what its dataclass says."""

import dataclasses
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from pydantic import TypeAdapter

import robusteval.conf
from robusteval import registry
from robusteval.datasets.base import Source
from robusteval.errors import UserError

FOLDER = Path(next(iter(robusteval.conf.__path__))) / "dataset"


def test_files_and_registry_name_the_same_datasets() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(registry.DATASETS)


@pytest.mark.parametrize("name", sorted(registry.DATASETS))
def test_a_file_holds_the_keys_and_defaults_of_the_dataclass(name: str) -> None:
    kind = registry.lookup(registry.DATASETS, "dataset.name", name)
    path = FOLDER / f"{name}.yaml"
    values = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(values, dict)
    source = TypeAdapter(kind).validate_python(values)
    assert isinstance(source, Source)
    assert dataclasses.asdict(source) == values
    assert list(values)[:4] == ["name", "root", "n", "path"]
    assert values["name"] == name
    defaults = {field.name: field.default for field in dataclasses.fields(kind) if field.name != "name"}
    assert {key: value for key, value in values.items() if key != "name"} == defaults
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("name", sorted(registry.DATASETS))
def test_root_or_path_without_a_meaning_is_refused_by_name(name: str) -> None:
    kind = registry.lookup(registry.DATASETS, "dataset.name", name)
    assert issubclass(kind, Source)
    assert kind.unused
    for key in kind.unused:
        with pytest.raises(UserError, match=rf"dataset={name} has no use for dataset\.{key} \('x' was given\)"):
            TypeAdapter(kind).validate_python({"name": name, key: "x"})


@pytest.mark.parametrize("n", [0, -1, "many", 1.5])
def test_wrong_sizes_of_a_subset_are_refused(n: object) -> None:
    kind = registry.lookup(registry.DATASETS, "dataset.name", "mnist_5k")
    with pytest.raises(ValueError, match="n"):
        TypeAdapter(kind).validate_python({"name": "mnist_5k", "n": n})

"""The configuration files against the dataclasses that they feed, the order of precedence, and the key of a run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import yaml

from robusteval import registry
from robusteval.compose import composed, sweep
from robusteval.config import Config, build, construct
from robusteval.errors import UserError
from robusteval.groups import CONF, groups
from robusteval.options import Checks, Engine, Evidence, Runs, Runtime, Stop
from robusteval.threat import ThreatModel

FILES = [(group, name) for group, names in groups().items() for name in names]
SECTIONS = {
    "engine": Engine,
    "evidence": Evidence,
    "checks": Checks,
    "stop": Stop,
    "runtime": Runtime,
    "threat": ThreatModel,
}

NAMES = dict.fromkeys(("timm", "torchvision"), "resnet18") | {"robustbench": "Wang2023Better_WRN-28-10"}


def configuration(*overrides: str, config_dir: Path | None = None) -> Config:
    return build(composed(overrides, None if config_dir is None else str(config_dir)))


def written(group: str, name: str) -> dict[str, Any]:
    content = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
    return {key: value for key, value in content.items() if key != "defaults"}


def kind_of(group: str, name: str, content: dict[str, Any]) -> type:
    """Return the dataclass that a configuration of a group is for."""
    if group == "attack":
        return registry.lookup(registry.ATTACKS, "attack.method", content["method"])
    if group == "model":
        return registry.lookup(registry.MODELS, "model.source", content["source"])
    if group == "transform":
        return registry.lookup(registry.TRANSFORMS, "transform", name)
    if group in ("dataset", "logger"):
        table = registry.DATASETS if group == "dataset" else registry.LOGGERS
        return registry.lookup(table, f"{group}.name", content["name"])
    return SECTIONS[group]


# ---------------------------------------------------------------- files and dataclasses


def test_everything_registered_can_be_named_and_everything_named_is_registered() -> None:
    content = {(group, name): written(group, name) for group, name in FILES if group != "experiment"}
    named = {group: {key: value for (g, key), value in content.items() if g == group} for group in groups()}
    assert {value["method"] for value in named["attack"].values()} == set(registry.ATTACKS) == set(named["attack"])
    assert {value["name"] for value in named["dataset"].values()} == set(registry.DATASETS) == set(named["dataset"])
    assert {value["name"] for value in named["logger"].values()} == set(registry.LOGGERS) == set(named["logger"])
    assert {value["source"] for value in named["model"].values()} == set(registry.MODELS)
    assert set(named["transform"]) == set(registry.TRANSFORMS)
    for ready in ("resnet18", "resnet50", "vit_b_16", "convnext_base", "densenet121", "vgg16_bn", "efficientnet_lite0"):
        assert named["model"][ready]["name"] == ready


@pytest.mark.parametrize(("group", "name"), [file for file in FILES if file[0] != "experiment"], ids=lambda part: part)
def test_every_file_says_what_it_is_and_composes_alone(group: str, name: str) -> None:
    first = (CONF / group / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 15
    needed = [f"model.name={NAMES[name]}"] if name in NAMES else []
    needed += ["transform.mix.model=mnist_cnn"] if (group, name) == ("transform", "mix") else []
    # pgd, the default, needs a radius, and none is usual for L2 on MNIST; nor does it search L1
    radius = ["threat.eps=0.5", "threat.norm=l2"] if name in ("unbounded", "l2") else []
    radius += ["threat.eps=6", "attack=apgd"] if name == "l1" else []
    given = configuration(f"{group}={name}", *needed, *radius)
    assert group == "experiment" or getattr(given, group) is not None
    assert build(given.plain()) == given  # what a worker is given


@pytest.mark.parametrize(("group", "name"), [file for file in FILES if file[0] != "experiment"], ids=lambda part: part)
def test_the_keys_and_values_of_a_file_are_those_of_its_dataclass(group: str, name: str) -> None:
    content = written(group, name)
    kind = kind_of(group, name, content)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    content.pop("method", None)
    if content.get("name") == "???":  # which the user must give
        content["name"] = NAMES[name]
    if content.get("model") == "???":
        content["model"] = "mnist_cnn"
    if group == "model" and name == "robustbench":
        assert (content["dataset"], content["threat"]) == ("${dataset.name}", "${threat.norm}")
        content |= {"dataset": "cifar10", "threat": "linf"}
    if content.get("eps") == "usual":
        content["eps"] = 0.5
    partly = {"evidence": {"limit"}}.get(group, set()) if name != "auto" else set()  # a size means nothing there
    assert set(content) == set(fields) - partly
    required = {
        key: "x"
        for key, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    given = construct(kind, content, group)
    for key, field in fields.items():
        if key in required or key in ("name", "norm", "eps", "keep", "level"):  # what the file is there to choose
            continue
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        assert getattr(given, key) == default, key


def test_the_defaults_of_the_top_are_those_of_the_dataclasses() -> None:
    given = configuration()
    assert (given.runs, given.seed, given.engine, given.runtime) == (Runs(), 0, Engine(), Runtime())
    assert given.logger.name == "wandb"


# ---------------------------------------------------------------- the usual radius, and the zoo


@pytest.mark.parametrize(
    ("overrides", "threat"),
    [
        (["threat=linf"], ThreatModel(norm="linf", eps=0.3)),
        (["threat=linf", "dataset=fashion_mnist_samples", "threat.eps=0.1"], ThreatModel(norm="linf", eps=0.1)),
        (["threat=linf", "dataset=cifar10_samples"], ThreatModel(norm="linf", eps=8 / 255)),
        (["threat=l2", "dataset=cifar100"], ThreatModel(norm="l2", eps=0.5)),
        (["threat=l1", "dataset=cifar10", "attack=apgd"], ThreatModel(norm="l1", eps=12)),
        (["threat=linf", "dataset=imagenet", "threat.goal=top5"], ThreatModel(norm="linf", eps=4 / 255, goal="top5")),
    ],
)
def test_a_norm_alone_takes_the_radius_usual_for_the_data(overrides: list[str], threat: ThreatModel) -> None:
    assert configuration(*overrides).threat == threat
    if "goal" not in str(overrides) and "eps" not in str(overrides):  # the same run under either name
        number = f"threat.eps={threat.eps}"
        assert configuration(*overrides).key == configuration(*overrides, number).key


@pytest.mark.parametrize(
    "overrides",
    [["threat=l2"], ["threat=l1", "attack=apgd"], ["threat=l2", "dataset=imagenet"], ["threat=linf", "dataset=arrays"]],
)
def test_where_no_radius_is_usual_one_is_asked_for(overrides: list[str]) -> None:
    with pytest.raises(
        UserError, match=r"threat\.eps=usual: no radius in .* is usual for dataset=.*; name one"
    ) as said:
        configuration(*overrides)
    example = {"threat=l2": "=0.5", "threat=l1": "=12"}.get(overrides[0], "=8/255")
    assert str(said.value).endswith(example)


def test_a_zoos_board_follows_the_run() -> None:
    name = "model.name=Standard_R50"
    given = configuration("model=robustbench", "model.name=Wang2023Better_WRN-28-10")
    assert (given.dataset.name, given.threat) == ("cifar10", ThreatModel(norm="linf", eps=8 / 255))
    assert given.model.board == ("cifar10", "Linf")
    given = configuration("model=robustbench", "model.name=Wang2023Better_WRN-28-10", "threat=l2")
    assert (given.threat.eps, given.model.board) == (0.5, ("cifar10", "L2"))
    given = configuration("model=robustbench", name, "dataset=imagenet", "dataset.subset=robustbench")
    assert (given.threat.eps, given.model.board, given.dataset.subset) == (4 / 255, ("imagenet", "Linf"), "robustbench")
    own = ["dataset=arrays", "dataset.path=a.npz", "model.dataset=cifar100", "model.name=Rice2020Overfitting"]
    given = configuration("model=robustbench", *own)
    assert (given.threat.eps, given.model.board) == (8 / 255, ("cifar100", "Linf"))
    corrupted = configuration("model=robustbench", name, "dataset=imagenet", "model.threat=corruptions")
    assert corrupted.model.board == ("imagenet", "corruptions")
    with pytest.raises(UserError, match=r"for imagenet .*not for cifar10"):
        configuration("model=robustbench", name)


def test_the_subset_of_all_is_no_part_of_the_key() -> None:
    plain = configuration("model=resnet50")
    assert "subset" not in plain.identity()["dataset"]
    assert configuration("model=resnet50", "dataset.subset=robustbench").key != plain.key


# ---------------------------------------------------------------- precedence


def test_an_attack_with_images_of_its_own_is_unbounded_unless_a_threat_is_named() -> None:
    for attack in ("solarize", "none"):
        assert configuration(f"attack={attack}").threat == ThreatModel(norm="unbounded", eps=None)
        assert configuration("model=resnet50", f"attack={attack}").threat.norm == "unbounded"
        assert configuration(f"attack={attack}", "threat=linf_8_255").threat == ThreatModel(norm="linf", eps=8 / 255)
        assert configuration("threat=linf_8_255", f"attack={attack}").threat.eps == 8 / 255
        assert configuration(f"attack={attack}", "threat.norm=l2", "threat.eps=2").threat.eps == 2
    assert configuration("attack=pgd").threat == ThreatModel(norm="linf", eps=0.3)


def test_a_model_brings_its_data_and_threat_unless_they_are_named() -> None:
    given = configuration("model=resnet50")
    assert (given.dataset.name, given.threat.eps) == ("imagenet", 4 / 255)
    given = configuration("threat=l2_0.5", "dataset=cifar10", "model=resnet50")
    assert (given.dataset.name, given.threat) == ("cifar10", ThreatModel(norm="l2", eps=0.5))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of the user's, whose name no grammar would take unquoted."""
    folder = tmp_path / "my conf, [1]=a"
    (folder / "experiment").mkdir(parents=True)
    (folder / "attack").mkdir()
    (folder / "experiment" / "small.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n"
        "  - override /model: mnist_cnn\n"
        "  - override /attack: solarize\n"
        "  - override /threat: l2_0.5\n"
        "seed: 7\n"
        "attack: {iterations: 3}\n"
    )
    (folder / "attack" / "long.yaml").write_text("# PGD for long\nmethod: pgd\nsteps: 500\n")
    return folder


def test_command_line_before_experiment_before_attack_before_model(mine: Path) -> None:
    given = configuration("experiment=small", config_dir=mine)
    assert (given.seed, given.attack.method, given.model.name) == (7, "solarize", "mnist_cnn")
    assert vars(given.attack)["iterations"] == 3
    assert given.threat.norm == "l2"  # the experiment's, not the attack's
    given = configuration("experiment=small", "seed=1", "attack.iterations=4", "threat=linf_0.3", config_dir=mine)
    assert (given.seed, vars(given.attack)["iterations"], given.threat.norm) == (1, 4, "linf")


def test_configurations_of_the_users_own(mine: Path, answer: Callable, evaluated: list[Any]) -> None:
    assert vars(configuration("attack=long", config_dir=mine).attack)["steps"] == 500
    assert answer("--config-dir", str(mine), "attack=long").code == 0
    assert evaluated[0].attack.steps == 500
    assert "did you mean 'long'" in answer("--config-dir", str(mine), "attack=lang").err
    assert answer("attack=long").code == 2
    assert "did you mean 'attack.steps'" in answer("--config-dir", str(mine), "attack=long", "attack.stps=1").err
    (mine / "attack" / "broken.yaml").write_text("method: pgd\n  steps: [1\n")
    (mine / "attack" / "foreign.yaml").write_text("_target_: os.system\ncommand: ls\n")
    (mine / "attack" / "empty.yaml").write_text("")
    (mine / "attack" / "list.yaml").write_text("- pgd\n")
    for name in ("broken", "foreign", "empty", "list"):
        given = answer("--config-dir", str(mine), f"attack={name}")
        assert (given.code, given.err.count("\n"), given.out) == (2, 1, ""), given
        assert name in given.err or "attack" in given.err
    assert len(evaluated) == 1


# ---------------------------------------------------------------- the key


def changed(field: dataclasses.Field, hint: Any, value: Any) -> Any:
    """Return another value that a field takes."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return changed(field, arguments[0], value)
    if origin in (Union, UnionType):
        return changed(field, next(part for part in arguments if part is not type(None)), value)
    if origin is Literal:
        return next((other for other in arguments if other != value), None)
    if origin is tuple:
        return {str: ("a", "b", "c")}.get(arguments[0], (3, 4, 5)[: 3 if Ellipsis in arguments else len(arguments)])
    return {int: 17, float: 0.625, bool: value is not True, str: "other"}[hint]


@pytest.mark.parametrize(
    "section",
    ["model", "dataset", "threat", "attack", "engine", "runtime", "evidence", "checks", "stop", "logger", "runs"],
)
def test_the_key_follows_what_decides_the_result_and_nothing_else(section: str) -> None:
    """Also a field that is new: it counts unless it is listed here."""
    base = configuration("model=checkpoint", "dataset=cifar10", "attack=pgd")
    held = getattr(base, section)
    for field in dataclasses.fields(held):
        other = changed(field, get_type_hints(type(held), include_extras=True)[field.name], getattr(held, field.name))
        if other is None:
            continue
        copied = object.__new__(type(held))  # without the checks: some values contradict others
        for name, value in vars(held).items():
            object.__setattr__(copied, name, value)
        object.__setattr__(copied, field.name, other)
        decides = section in ("model", "dataset", "threat", "attack", "stop")
        decides |= section == "engine" and field.name in ("chunk", "stop", "draws", "mode")
        decides &= field.name != "download"  # how the images come changes nothing
        assert (dataclasses.replace(base, **{section: copied}).key != base.key) == decides, field.name


def test_the_key_is_a_function_of_the_configuration_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    overrides = ["model=mnist_cnn", "attack=pgd", "attack.steps=7", "threat.eps=8/255", "dataset.n=64", "seed=3"]
    key = configuration(*overrides).key
    assert len(key) == 10
    assert set(key) <= set("0123456789abcdef")
    assert configuration(*reversed(overrides)).key == key
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBUSTEVAL_RUNS", str(tmp_path))
    same = [
        "logger=none",
        "evidence=all",
        "engine.slots=7",
        "runtime.threads=1",
        "runtime.workers=2",
        "runtime.device=cpu",
        "runs.fresh=true",
        "runs.dir=x",
    ]
    assert configuration(*overrides, *same).key == key
    assert configuration(*overrides, "engine.chunk=256").key == key  # what it is anyway
    for other in (
        "seed=4",
        "attack.steps=8",
        "attack=fgsm",
        "model=mnist_cnn_at",
        "threat.eps=4/255",
        "dataset.n=65",
        "engine.stop=never",
    ):
        rest = [override for override in overrides if other != "attack=fgsm" or "attack.steps" not in override]
        assert configuration(*rest, other).key != key
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack" / "named.yaml").write_text("# the same by another name\nmethod: pgd\nsteps: 7\n")
    named = ["attack=named", *(override for override in overrides if not override.startswith("attack"))]
    assert configuration(*named, config_dir=tmp_path).key == key


def test_the_folder_has_a_name_that_every_file_system_takes() -> None:
    given = configuration("model=python", "model.name='" + "my net/" * 60 + "'")
    assert len(given.folder_name) < 200
    assert "/" not in given.folder_name
    assert given.folder_name.endswith(given.key)


@pytest.mark.parametrize(
    "form", ["8/255", "'8/255'", '"8/255"', "8 / 255", "0.03137254901960784", "8e0/255.0", "+8/255"]
)
def test_a_radius_in_every_form(form: str) -> None:
    assert configuration(f"threat.eps={form}").threat.eps == 8 / 255
    assert configuration(f"threat.eps={form}").key == configuration("threat=linf_8_255").key
    assert configuration(f"++threat.eps={form}").threat.eps == 8 / 255


def test_several_radii_in_any_order_are_one_configuration() -> None:
    given = configuration("threat.eps=[2/255, 0.1,8/255]")
    assert given.threat.eps == (2 / 255, 8 / 255, 0.1)
    assert given.plain()["threat"]["eps"] == (2 / 255, 8 / 255, 0.1)
    assert configuration("threat.eps=[0.1,8/255,2/255]").key == given.key
    assert configuration("threat.eps=0.1").key == configuration("threat.eps=[0.1]").key != given.key


def test_fractions_inside_lists() -> None:
    given = configuration("model=python", "model.mean=[1/2, 0.5]", "model.sd=[1/4, 1]")
    assert (given.model.mean, given.model.sd) == ((0.5, 0.5), (0.25, 1.0))


def test_a_sweep_is_the_product_of_its_lists_in_order() -> None:
    assert sweep(["model=a,b", "seed=1", "attack=x,y"]) == [
        ["model=a", "seed=1", "attack=x"],
        ["model=a", "seed=1", "attack=y"],
        ["model=b", "seed=1", "attack=x"],
        ["model=b", "seed=1", "attack=y"],
    ]
    assert sweep(["threat.eps=range(0,3)"]) == [["threat.eps=0"], ["threat.eps=1"], ["threat.eps=2"]]
    assert sweep(["logger.tags=[a,b]"]) == [["logger.tags=[a,b]"]]
    with pytest.raises(UserError, match="no values"):
        sweep(["seed=range(3,3)"])

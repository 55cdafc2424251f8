"""The validated configuration of one evaluation, and its key.

Hydra composes plain mappings; here the dataclasses named in them are imported and built. Whatever a user can get wrong
in an option is answered with the key, what came, and what is allowed.
"""

import dataclasses
import functools
import hashlib
import json
import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from robusteval import registry
from robusteval.attacks.base import Attack, WholeBatch
from robusteval.classifier import Classifier, Preprocessing
from robusteval.datasets.base import Dataset
from robusteval.errors import UserError, did_you_mean
from robusteval.experiments import KEYS as EXPERIMENT_KEYS
from robusteval.groups import CONF, groups, no_option
from robusteval.models.transforms.apply import check_order
from robusteval.models.transforms.base import Transform
from robusteval.options import Checks, Engine, Evidence, Runs, Runtime, Stop
from robusteval.published import protocol
from robusteval.threat import ThreatModel

# Beyond this a number is a slip of the keyboard, and would overflow in torch.
_LARGEST = 2**31

# Images between two looks at whether a run may stop, unless engine.chunk says otherwise.
_STAGE = 64

# Raised when the meaning of a key changes for every run, whatever its attack.
KEY_VERSION = 1

T = TypeVar("T")


class ModelOptions(Protocol):
    """Options of a model source: what it takes to load one classifier."""

    source: str
    name: str

    def missing(self) -> str | None: ...
    def load(self) -> Classifier: ...


class DatasetOptions(Protocol):
    """Options of a dataset source."""

    chunk: ClassVar[int]
    name: str

    def missing(self) -> str | None: ...
    def load(self, preprocessing: Preprocessing, seed: int) -> Dataset: ...


@dataclass(frozen=True, kw_only=True)
class Config:
    """One evaluation, validated."""

    model: Any
    dataset: Any
    threat: ThreatModel
    transform: tuple[Transform, ...]
    attack: Attack
    engine: Engine
    runtime: Runtime
    evidence: Evidence
    checks: Checks
    stop: Stop
    logger: Any
    runs: Runs
    seed: int

    @property
    def chunk(self) -> int:
        return self.engine.chunk or (min(_STAGE, self.dataset.chunk) if self.stop.asked else self.dataset.chunk)

    def identity(self) -> dict[str, Any]:
        """Return what decides the result: everything that the key hashes."""
        return {
            "version": KEY_VERSION,
            "model": _plain(self.model),
            "dataset": _data(_plain(self.dataset)),
            # What is left out stands for what was there before it could be named, so that keys stay what they were.
            "threat": {key: value for key, value in _plain(self.threat).items() if (key, value) != ("region", None)},
            "attack": {"method": self.attack.method, "revision": self.attack.revision, **_plain(self.attack)},
            "seed": self.seed,
            "chunk": self.chunk,
            "stop": self.engine.stop,
            "draws": self.engine.draws,
            "mode": self.engine.mode,
            # Only where there are some, so that the key of a plain run is what it was before there were any.
            **({"transform": [[one.method, _plain(one)] for one in self.transform]} if self.transform else {}),
            **({"stopping": self.stop.asked} if self.stop.asked else {}),
        }

    @property
    def key(self) -> str:
        """Ten hex digits: the same for run, sweep and launcher, without looking at data or weights."""
        canonical = json.dumps(self.identity(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:10]

    @property
    def model_name(self) -> str:
        """What the model is called: its label where it has one beside its name, and its transforms."""
        return "+".join([getattr(self.model, "label", self.model.name), *(one.label() for one in self.transform)])

    @property
    def folder_name(self) -> str:
        return "-".join([_slug(self.model_name), _slug(self.dataset.name), _slug(self.attack.label()), self.key])

    def plain(self) -> dict[str, Any]:
        """Return the resolved configuration as it is written into the run folder."""
        return {
            **{
                field.name: _plain(getattr(self, field.name))
                for field in dataclasses.fields(self)
                if field.name not in ("seed", "transform")
            },
            "transform": {one.method: _plain(one) for one in self.transform},
            "attack": {"method": self.attack.method, **_plain(self.attack)},
            "seed": self.seed,
        }


def build(composed: Mapping[str, Any]) -> Config:
    """Return the validated configuration of a composed mapping.

    Raises UserError naming the key, what came and what to do.
    """
    composed = {"checks": {}, "stop": {}, **composed}  # runs of earlier versions wrote neither
    sections = (
        "model",
        "dataset",
        "threat",
        "attack",
        "engine",
        "runtime",
        "evidence",
        "checks",
        "stop",
        "logger",
        "runs",
    )
    for name in sections:
        if not isinstance(composed.get(name), Mapping):
            raise UserError(f"{name}={composed.get(name)}: {name} is a set of options; set one, as in {name}.KEY=VALUE")
    others = ("seed", "transform", *EXPERIMENT_KEYS)
    if unknown := sorted(set(composed) - {*sections, *others}):
        raise UserError(f"{unknown[0]} is not a known key{did_you_mean(unknown[0], [*sections, *others])}")
    attack = dict(composed["attack"])
    attack_class = registry.lookup(registry.ATTACKS, "attack.method", attack.pop("method", None))
    config = Config(
        model=construct(
            registry.lookup(registry.MODELS, "model.source", composed["model"].get("source")),
            composed["model"],
            "model",
        ),
        dataset=construct(
            registry.lookup(registry.DATASETS, "dataset.name", composed["dataset"].get("name")),
            composed["dataset"],
            "dataset",
        ),
        threat=construct(ThreatModel, _with_radius(composed), "threat"),
        transform=_transforms(composed.get("transform")),
        attack=construct(attack_class, attack, "attack"),
        engine=construct(Engine, composed["engine"], "engine"),
        runtime=construct(Runtime, composed["runtime"], "runtime"),
        evidence=construct(Evidence, composed["evidence"], "evidence"),
        checks=construct(Checks, composed["checks"], "checks"),
        stop=construct(Stop, composed["stop"], "stop"),
        logger=construct(
            registry.lookup(registry.LOGGERS, "logger.name", composed["logger"].get("name")),
            composed["logger"],
            "logger",
        ),
        runs=construct(Runs, composed["runs"], "runs"),
        seed=_seed(composed.get("seed")),
    )
    if config.threat.norm not in config.attack.norms:
        raise UserError(
            f"attack={config.attack.method} does not search threat.norm={config.threat.norm}; it takes "
            f"{', '.join(sorted(config.attack.norms))}"
        )
    if config.attack.keeps == "nearest" and config.threat.goal != "top1":
        raise UserError(
            f"attack={config.attack.method} looks for the nearest image with another prediction, so it takes no "
            f"threat.goal={config.threat.goal}; use threat.goal=top1 or another attack"
        )
    if config.engine.mode != "exact" and not config.attack.is_search():
        raise UserError(
            f"engine.mode={config.engine.mode}: attack={config.attack.label()} has no search of ours for bfloat16 to "
            "speed up; use engine.mode=exact"
        )
    if len(config.threat.radii) > 1 and (config.attack.parametric or config.attack.columns() is not None):
        raise UserError(
            f"threat.eps={list(config.threat.radii)}: attack={config.attack.method} has one number to choose, not a "
            f"way into the ball, so it makes no curve over the "
            f"radius; name one, as in threat.eps={config.threat.radius:g}"
        )
    if config.threat.region is not None and config.attack.parametric:
        raise UserError(
            f"threat.region={config.threat.region}: attack={config.attack.method} makes a new image of the whole one "
            "by a single number, so it stays in no region; leave threat.region away, or use another attack"
        )
    if config.stop.asked:
        _stops(config)
    whole = any(isinstance(part, WholeBatch) for _, part in config.attack.stages(config.threat.norm))
    if whole and config.engine.mode != "exact":
        raise UserError(
            f"engine.mode={config.engine.mode}: attack={config.attack.method} runs as its library does, in float32; "
            "use engine.mode=exact"
        )
    return config


def _stops(config: Config) -> None:
    """Refuse a stopping rule where its decision would not be a function of the configuration."""
    name, value = next(iter(config.stop.asked.items()))
    if config.runtime.shards > 1 or config.runtime.shard is not None:
        raise UserError(
            f"stop.{name}={value} decides from one chunk to the next, which shards cannot know of each other; use "
            "runtime.workers, or leave the rule out"
        )
    if config.attack.universal():
        raise UserError(
            f"stop.{name}={value}: attack={config.attack.label()} looks for what is worst over all images, so none may "
            "be left out; leave the rule out"
        )


def named_model(name: str, options: Mapping[str, Any], section: str) -> ModelOptions:
    """Return the options of a model of conf/model with ``options`` set in it; ``section`` is the key that named it.

    Raises UserError where there is no such name or option.
    """
    known = groups()
    if name not in known["model"]:
        raise UserError(f"{section}.model={name}: {no_option('model', name, known)}")
    written = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    values = {key: value for key, value in {**written, **options}.items() if key != "defaults"}
    kind = registry.lookup(registry.MODELS, f"{section}.options.source", values["source"])
    return construct(kind, values, f"{section}.options")


def _transforms(composed: Any) -> tuple[Transform, ...]:
    """Return the transforms of the section ``transform``, which names each with its options, in order."""
    if composed is None:
        return ()
    if not isinstance(composed, Mapping):
        raise UserError(f"transform={composed}: name transforms, as in transform=padding or transform=[padding,jpeg]")
    found: list[Transform] = []
    for name, values in composed.items():
        if name not in registry.TRANSFORMS:
            near = did_you_mean(str(name), registry.TRANSFORMS)
            raise UserError(f"transform.{name} is not known{near} (known: {', '.join(sorted(registry.TRANSFORMS))})")
        kind: type[Transform] = registry.lookup(registry.TRANSFORMS, "transform", name)
        if not isinstance(values, Mapping):
            raise UserError(f"transform.{name}={values}: {name} is a set of options; set one in transform.{name}.KEY")
        found.append(construct(kind, values, f"transform.{name}"))
        if (other := found[-1].other()) is not None:
            named_model(*other, f"transform.{name}")
    check_order(found)
    return tuple(found)


def construct(kind: type[T], values: Mapping[str, Any], section: str) -> T:
    """Return the dataclass ``kind`` built from ``values``; a fraction such as 8/255 serves wherever a number is due."""
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.name for field in dataclasses.fields(kind) if field.init}  # pyright: ignore[reportArgumentType]
    for name in values:
        if name not in fields:
            there = f"options: {', '.join(sorted(fields))}" if fields else "it has none"
            raise UserError(
                f"{section}.{name} is not an option of {section}{did_you_mean(str(name), fields)} ({there})"
            )
    given = {name: _number(value, hints[name], f"{section}.{name}") for name, value in values.items()}
    try:
        return _adapter(kind).validate_python(given)
    except ValidationError as error:
        raise UserError(_sentence(error, section, given)) from None


def _with_radius(composed: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the options of the threat, the usual radius for the data as a number where that is asked for."""
    threat = composed["threat"]
    if threat.get("eps") != "usual":
        return threat
    norm, data = threat.get("norm"), composed["dataset"].get("name")
    # The user's own arrays are what the model says that it was made for, where it does.
    radius = protocol.usual(str(data), norm) or protocol.usual(str(composed["model"].get("dataset")), norm)
    if radius is None:
        example = {"l2": "0.5", "l1": "12"}.get(str(norm), "8/255")
        raise UserError(
            f"threat.eps=usual: no radius in {norm} is usual for dataset={data}; name one, as in threat.eps={example}"
        )
    return {**threat, "eps": radius}


@functools.cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Return pydantic's view of a dataclass, made once: a sweep builds a thousand configurations of a few kinds."""
    return TypeAdapter(kind)


def _sentence(error: ValidationError, section: str, given: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join([section, *path[:1]])
    message = first["msg"].removeprefix("Value error, ")
    if not path:
        return f"{section}{'.' if re.match(r'[a-z_]+[=:]', message) else ': '}{message}"
    if first["type"] == "string_type" and isinstance(given[path[0]], int | float):
        return f"{key}={given[path[0]]}: text is due here; quote what looks like a number, as in '{key}=\"2012\"'"
    return f"{key}={given.get(path[0])}: {message[0].lower()}{message[1:]}"


def _number(value: Any, hint: Any, key: str) -> Any:
    kinds = _kinds(hint)
    numeric = bool(kinds & {int, float})
    if isinstance(value, bool) and numeric and bool not in kinds:
        raise UserError(f"{key}={value}: a number is due here, not true or false")
    if isinstance(value, str) and float in kinds and str not in kinds:
        fraction = re.fullmatch(r"\s*([-+.\deE]+)\s*/\s*([-+.\deE]+)\s*", value)
        try:
            value = float(fraction[1]) / float(fraction[2]) if fraction else float(value)
        except (ValueError, ZeroDivisionError):
            raise UserError(f"{key}={value}: a number or a fraction such as 8/255 is due here") from None
    if isinstance(value, list | tuple):
        return [_number(item, hint, key) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        advice = "; threat=unbounded has no radius" if key == "threat.eps" else ""
        raise UserError(f"{key}={value}: a finite number is due here{advice}")
    if isinstance(value, int | float) and abs(value) >= _LARGEST:
        raise UserError(f"{key}={value}: a number between -2^31 and 2^31 is due here")
    return value


def _kinds(hint: Any) -> set[Any]:
    """Return the plain types that an annotation admits, at any depth."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _kinds(get_args(hint)[0])
    if origin is Literal:
        return {type(value) for value in get_args(hint)}
    if origin in (Union, types.UnionType, tuple, list):
        return {kind for part in get_args(hint) for kind in _kinds(part)}
    return {hint}


def _data(options: dict[str, Any]) -> dict[str, Any]:
    """Return what decides which images are read: whether files may be fetched says nothing of what is in them."""
    # All pictures, as before there were subsets of them by name.
    whole = ("subset",) if options.get("subset") is None else ()
    return {key: value for key, value in options.items() if key not in ("download", *whole)}


def _seed(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise UserError(f"seed={value}: a whole number from 0 to 2^63 - 1 is due here")
    return value


def _plain(value: Any) -> dict[str, Any]:
    return dataclasses.asdict(value)


def _slug(name: str) -> str:
    # Cut, since a file system takes 255 bytes; the key tells apart what the name does not.
    return re.sub(r"[^A-Za-z0-9_.]+", "_", name).strip("._")[:60] or "unnamed"

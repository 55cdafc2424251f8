"""timm's classifiers by name, with the preprocessing that timm states for their weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from robusteval.classifier import Classifier, Preprocessing
from robusteval.datasets.names import imagenet_names
from robusteval.errors import UserError, did_you_mean
from robusteval.models import hub
from robusteval.models.assemble import Size, assemble, last_layer
from robusteval.models.weights import StateDict, check_finite, read


@dataclass(frozen=True, kw_only=True)
class Timm:
    """A classifier of timm, such as convnext_tiny.in12k_ft_in1k; without a tag its default weights.

    ``weights`` is the path of a file; without it the caches of Hugging Face and torch are looked up.
    """

    source: Literal["timm"] = "timm"
    name: str
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.name == "???":  # what the configuration file has where the user must choose
            raise UserError("model=timm needs model.name=NAME, such as convnext_tiny.in12k_ft_in1k")

    def missing(self) -> str | None:
        """Return a sentence where the weights are not on this machine; nothing is downloaded."""
        config = config_of(self.name)
        if self.weights is not None:
            found = Path(self.weights).expanduser().is_file()
            return (
                None
                if found
                else f"model.weights={self.weights} does not exist; name a file of weights, or leave it out"
            )
        if not hub.published(config):
            return (
                f"timm publishes no weights for {self.name}; name your own with model.weights=FILE, or another of "
                "its names"
            )
        if hub.cached(config) is not None:
            return None
        return (
            f"the weights of {self.name} are not in {hub.places(config)}; connect to the internet (and unset "
            "HF_HUB_OFFLINE) to download "
            "them, or name a file with model.weights=FILE"
        )

    def load(self) -> Classifier:
        """Return the classifier, downloading its weights into Hugging Face's cache where they are not there yet."""
        config = config_of(self.name)
        if self.weights is not None:
            path = Path(self.weights).expanduser()
        else:
            if not hub.published(config):
                raise UserError(str(self.missing()))
            path = hub.cached(config) or hub.fetch(config)
        preprocessing = preprocessing_of(config, self.name)
        classes = int(config["num_classes"])
        return assemble(
            _load(self.name, read(path), path),
            name=self.name,
            source=f"{self.source} {config['tag'] or path.name}"
            if self.weights is None
            else f"{self.source} {path.name}",
            mean=config["mean"],
            sd=config["std"],
            input_size=tuple(config["input_size"]),
            classes=classes,
            # The same names as the dataset's, so that their order can be compared.
            class_names=imagenet_names() if classes == 1000 else config.get("label_names"),
            preprocessing=preprocessing,
        )


def config_of(name: str) -> dict[str, Any]:
    """Return what timm knows about a name and its weights. Raises UserError where it has none that classify."""
    import timm

    _require(name)
    architecture, _, tag = name.partition(".")
    found = (
        timm.get_pretrained_cfg(name, allow_unregistered=False) if not tag or timm.is_model_pretrained(name) else None
    )
    if found is None:
        tags = [full.partition(".")[2] for full in timm.list_models(f"{architecture}.*", pretrained=True)]
        raise UserError(
            f"model.name={name}: timm has no weights '{tag}' for {architecture}{did_you_mean(tag, tags)} (it has: "
            f"{', '.join(tags) or 'none'})"
        )
    config = found.to_dict()
    if not config["num_classes"]:
        raise UserError(
            f"model.name={name} only extracts features: timm's weights hold no classes; choose weights with a "
            "classifier"
        )
    return config


def preprocessing_of(config: Mapping[str, Any], name: str) -> Preprocessing:
    """Return the steps of timm's evaluation: the shorter side (``squash``: both) to size / crop_pct, then the centre.

    Raises UserError where timm pads the picture instead, which no Preprocessing can state.
    """
    _, height, width = config["input_size"]
    mode, share = config["crop_mode"], config["crop_pct"]
    full = (int(height / share), int(width / share))
    if mode not in ("center", "squash") or (mode == "center" and height != width):
        raise UserError(
            f"model.name={name} pads its pictures (crop_mode={mode}, {height}x{width}), which is not supported; "
            "choose another name"
        )
    return Preprocessing(
        resize=full if mode == "squash" else full[0], crop=(height, width), interpolation=config["interpolation"]
    )


def architectures() -> list[str]:
    """Return the names of timm's architectures, without tags of weights."""
    import timm

    return timm.list_models()


def known(name: str) -> bool:
    """Return whether timm has the architecture of a name, with or without a tag."""
    import timm

    return timm.is_model(name.partition(".")[0])


def size_of(name: str) -> Size:
    """Return the (channels, height, width) that timm states for a name. Raises UserError where it is unknown."""
    import timm

    _require(name)
    found = timm.get_pretrained_cfg(name)
    return (3, 224, 224) if found is None else found.input_size


def build(name: str, classes: int, channels: int = 3) -> nn.Module:
    """Return the network with fresh weights."""
    import timm

    return timm.create_model(name, num_classes=classes, in_chans=channels)


def last_layer_of(network: nn.Module) -> str | None:
    """Return the name of the layer whose outputs are the logits."""
    stated = vars(network).get("pretrained_cfg", {}).get("classifier")
    if isinstance(stated, str):
        return stated
    return stated[0] if stated else last_layer(network)


def _require(name: str) -> None:
    if not known(name):
        raise UserError(
            f"model.name={name} is not a name of timm{did_you_mean(name.partition('.')[0], architectures())}"
        )


def _load(name: str, state: StateDict, path: Path) -> nn.Module:
    """Return the network with weights; timm itself renames those of older formats."""
    import timm

    check_finite(state, str(path))
    try:
        network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(state)})
    except (RuntimeError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path} does not fit {name} ({reason}); for weights with classes of your own: model=checkpoint "
            f"model.name=timm/{name} "
            "model.weights=FILE"
        ) from error
    vars(network)["pretrained_cfg"].pop("state_dict", None)  # otherwise the network would carry its weights twice
    return network

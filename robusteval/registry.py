"""What can be named in a configuration, and where its dataclass of options lives.

Entries are strings, so that names can be listed and misspelt ones answered without importing torch.
"""

import importlib
from types import MappingProxyType

from robusteval.errors import UserError, did_you_mean

ATTACKS = MappingProxyType(
    {
        "none": "robusteval.attacks.none:NoAttack",
        "apgd": "robusteval.attacks.apgd:APGD",
        "autoattack": "robusteval.attacks.autoattack:AutoAttack",
        "brightness": "robusteval.attacks.brightness:Brightness",
        "contrast": "robusteval.attacks.contrast:Contrast",
        "fab": "robusteval.attacks.fab:FAB",
        "cw": "robusteval.attacks.cw:CW",
        "noise": "robusteval.attacks.noise:Noise",
        "fgsm": "robusteval.attacks.fgsm:FGSM",
        "fmn": "robusteval.attacks.fmn:FMN",
        "gamma": "robusteval.attacks.gamma:Gamma",
        "high_pass": "robusteval.attacks.high_pass:HighPass",
        "hue": "robusteval.attacks.hue:Hue",
        "invert": "robusteval.attacks.invert:Invert",
        "jpeg": "robusteval.attacks.jpeg:Jpeg",
        "low_pass": "robusteval.attacks.low_pass:LowPass",
        "pgd": "robusteval.attacks.pgd:PGD",
        "posterize": "robusteval.attacks.posterize:Posterize",
        "mifgsm": "robusteval.attacks.mifgsm:MIFGSM",
        "reference/autoattack": "robusteval.attacks.reference.autoattack:ReferenceAutoAttack",
        "reference/foolbox": "robusteval.attacks.reference.foolbox:Foolbox",
        "reference/torchattacks": "robusteval.attacks.reference.torchattacks:Torchattacks",
        "rotate": "robusteval.attacks.rotate:Rotate",
        "solarize": "robusteval.attacks.solarize:Solarize",
        "square": "robusteval.attacks.square:Square",
        "transfer": "robusteval.attacks.transfer:Transfer",
        "translate": "robusteval.attacks.translate:Translate",
    }
)

MODELS = MappingProxyType(
    {
        "bundled": "robusteval.models.bundled:Bundled",
        "checkpoint": "robusteval.models.checkpoint:Checkpoint",
        "efficientnet_lite0": "robusteval.models.efficientnet_lite0:EfficientNetLite0",
        "padding": "robusteval.models.padding:PaddingNet",
        "python": "robusteval.models.python:Python",
        "robustbench": "robusteval.models.robustbench:RobustBench",
        "timm": "robusteval.models.timm:Timm",
        "torchvision": "robusteval.models.torchvision:Torchvision",
    }
)

DATASETS = MappingProxyType(
    {
        "arrays": "robusteval.datasets.arrays:Arrays",
        "cifar10": "robusteval.datasets.cifar:Cifar10",
        "cifar100": "robusteval.datasets.cifar:Cifar100",
        "cifar10_samples": "robusteval.datasets.samples:Samples",
        "cifar100_samples": "robusteval.datasets.samples:Samples",
        "fashion_mnist_samples": "robusteval.datasets.samples:Samples",
        "folder": "robusteval.datasets.folder:Folder",
        "imagenet": "robusteval.datasets.imagenet:ImageNet",
        "imagenet_samples": "robusteval.datasets.samples:Samples",
        "mnist": "robusteval.datasets.mnist:Mnist",
        "mnist_5k": "robusteval.datasets.mnist_5k:Mnist5k",
        "mnist_samples": "robusteval.datasets.samples:Samples",
    }
)

TRANSFORMS = MappingProxyType(
    {
        "jpeg": "robusteval.models.transforms.inputs:Jpeg",
        "mix": "robusteval.models.transforms.mix:Mix",
        "padding": "robusteval.models.transforms.padding:Padding",
        "quantise": "robusteval.models.transforms.inputs:Quantise",
        "smoothing": "robusteval.models.transforms.inputs:Smoothing",
        "temperature": "robusteval.models.transforms.temperature:Temperature",
    }
)

STUDIES = MappingProxyType(
    {
        "confidence": "robusteval.studies.confidence:report",
        "padding": "robusteval.studies.padding:report",
    }
)

LOGGERS = MappingProxyType(
    {
        "none": "robusteval.sinks.options:NoLogger",
        "wandb": "robusteval.sinks.options:WandbLogger",
    }
)


def lookup(table: "MappingProxyType[str, str]", key: str, name: object) -> type:
    """Return the dataclass registered under ``name``; ``key`` is the configuration key that named it.

    Raises UserError with the nearest name where there is none.
    """
    if not isinstance(name, str) or name not in table:
        raise UserError(
            f"{key}={name} is not known{did_you_mean(str(name), table)} (known: {', '.join(sorted(table))})"
        )
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)

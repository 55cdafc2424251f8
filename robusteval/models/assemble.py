"""From a network and what is known about its input to a Classifier: the steps that every source shares."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from robusteval.classifier import Classifier, Normalised, Preprocessing, Reference
from robusteval.errors import UserError
from robusteval.models.weights import digest_of

Size = tuple[int, int, int]


def assemble(
    network: nn.Module,
    *,
    name: str,
    source: str,
    mean: Sequence[float] | None = None,
    sd: Sequence[float] | None = None,
    classes: int | None = None,
    input_size: Size | None = None,
    class_names: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    reference: Reference | None = None,
) -> Classifier:
    """Return the classifier of a network, in eval mode, with its normalisation inside.

    Where ``input_size`` is known, two blank images are classified: the answer must be [2, classes]. Where it is not,
    the number of classes is ``classes``, or that of the last linear or convolutional layer.
    """
    module = (network if mean is None or sd is None else Normalised(network, mean, sd)).eval()
    answered = classes if input_size is None else _answer(module, input_size)
    _check_weights(module)
    if answered is None:
        answered = outputs(network)
    if answered is None:
        raise UserError(
            "how many classes the network tells apart is not known; set model.classes (or model.input_size)"
        )
    if classes is not None and classes != answered:
        raise UserError(
            f"model.classes={classes}, but the network answers with {answered} logits; correct or leave out "
            "model.classes"
        )
    if class_names is not None and len(class_names) != answered:
        raise UserError(
            f"{len(class_names)} class names came for a network of {answered} classes; name each class once, in the "
            "order of the logits"
        )
    return Classifier(
        module=module,
        name=name,
        source=source,
        classes=answered,
        input_size=input_size,
        class_names=None if class_names is None else tuple(class_names),
        preprocessing=preprocessing or Preprocessing(),
        digest=digest_of(module),
        reference=reference,
    )


def outputs(network: nn.Module) -> int | None:
    """Return the number of outputs of the last linear or convolutional layer, None where there is none."""
    name = last_layer(network)
    layer = None if name is None else network.get_submodule(name)
    # Not the length of its weight, which spectral or weight normalisation may have made a mere product of parameters.
    return layer.out_features if isinstance(layer, nn.Linear) else getattr(layer, "out_channels", None)


def last_layer(network: nn.Module) -> str | None:
    """Return the name of the linear or convolutional layer that was registered last, None where there is none."""
    names = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return names[-1] if names else None


def check_normalisation(mean: Sequence[float] | None, sd: Sequence[float] | None, input_size: Size | None) -> None:
    """Raise UserError unless mean and sd are both absent, or finite, of one length (one a channel), sd above 0."""
    if mean is None and sd is None:
        return
    if mean is None or sd is None:
        came, lacks = ("mean", "sd") if sd is None else ("sd", "mean")
        raise UserError(f"model.{came} came without model.{lacks}; give both, one number a channel, or neither")
    if len(mean) != len(sd) or not mean:
        raise UserError(f"model.mean has {len(mean)} numbers and model.sd {len(sd)}; give one a channel in both")
    if input_size is not None and len(mean) not in (1, input_size[0]):
        channels = input_size[0]
        raise UserError(
            f"model.mean has {len(mean)} numbers, but model.input_size {channels} channels; give {channels}"
        )
    for key, values in (("mean", mean), ("sd", sd)):
        for value in values:
            if not math.isfinite(value) or (key == "sd" and value <= 0):
                due = "numbers above 0" if key == "sd" else "finite numbers"
                raise UserError(f"model.{key}={list(values)}: {due} are due here, for images in [0, 1]")


def _check_weights(module: nn.Module) -> None:
    """Raise UserError where weights have no size yet, or allow no gradient ever."""
    for name, value in module.named_parameters():
        if isinstance(value, UninitializedParameter):
            raise UserError(f"'{name}' has no size before the first images come; set model.input_size")
        if value.is_inference():
            raise UserError(
                f"'{name}' was made under torch.inference_mode(), so nothing can be differentiated; make the network "
                "outside of it"
            )


def _answer(module: nn.Module, input_size: Size) -> int:
    try:
        with torch.no_grad():
            logits = module(torch.full((2, *input_size), 0.5))
    # The forward pass may be the user's own code, which may raise anything.
    except Exception as error:
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
        raise UserError(f"the network does not take images of model.input_size={list(input_size)}: {reason}") from error
    if not isinstance(logits, Tensor):
        raise UserError(
            f"the network answers with a {type(logits).__name__}, not with a tensor of logits [n, classes]; wrap it "
            "so that it does"
        )
    if logits.ndim != 2 or len(logits) != 2:
        raise UserError(
            f"the network answers 2 images with a tensor of shape {list(logits.shape)}; logits [2, classes] are due"
        )
    return logits.shape[1]

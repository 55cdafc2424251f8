"""Networks by the name of their architecture, made to measure for the weights that they are to hold."""

from torch import nn

from robusteval.errors import UserError, did_you_mean
from robusteval.models import timm, torchvision
from robusteval.models.assemble import Size, last_layer
from robusteval.models.weights import StateDict

# Used where the weights lack the last layer: then they do not fit anyway, and the difference is told.
_IMAGENET_CLASSES = 1000

Found = tuple[nn.Module, StateDict, Size | None]


def fitting(name: str, state: StateDict, *, classes: int | None, input_size: Size | None) -> Found:
    """Return (network with fresh weights, the weights under its names, its input size).

    ``name`` is torchvision's where it has it, else timm's; torchvision/NAME and timm/NAME name the library. The number
    of classes is that of the last layer in ``state`` unless given. Raises UserError for an unknown name.
    """
    library, slash, plain = name.rpartition("/")
    makers = {"torchvision": _of_torchvision, "timm": _of_timm}
    if slash:
        if library not in makers:
            raise UserError(
                f"model.name={name}: '{library}' is neither torchvision nor timm; write torchvision/NAME or timm/NAME"
            )
        return makers[library](plain, state, classes, input_size)
    if name not in torchvision.names():
        if not timm.known(name):
            known = [*torchvision.names(), *timm.architectures()]
            raise UserError(f"model.name={name} is no architecture of torchvision or timm{did_you_mean(name, known)}")
        return _of_timm(name, state, classes, input_size)
    found = _of_torchvision(name, state, classes, input_size)
    if timm.known(name) and not _same_names(found) and _same_names(_of_timm(name, state, classes, input_size)):
        raise UserError(
            f"the weights have the names of timm's {name}, not of torchvision's; set model.name=timm/{name}"
        )
    return found


def _of_torchvision(name: str, state: StateDict, classes: int | None, input_size: Size | None) -> Found:
    side = torchvision.side_of(name)
    size = input_size or (3, side, side)
    state = torchvision.modern(name, state)
    network = torchvision.build(name, _IMAGENET_CLASSES, size[1])
    found = classes or _rows(state, last_layer(network)) or _IMAGENET_CLASSES
    return network if found == _IMAGENET_CLASSES else torchvision.build(name, found, size[1]), state, size


def _of_timm(name: str, state: StateDict, classes: int | None, input_size: Size | None) -> Found:
    stated = timm.size_of(name)
    size = input_size or stated
    network = timm.build(name, _IMAGENET_CLASSES, size[0])
    found = classes or _rows(state, timm.last_layer_of(network)) or _IMAGENET_CLASSES
    return network if found == _IMAGENET_CLASSES else timm.build(name, found, size[0]), state, size


def _rows(state: StateDict, layer: str | None) -> int | None:
    weight = state.get(f"{layer}.weight")
    return None if weight is None or weight.ndim == 0 else len(weight)


def _same_names(found: Found) -> bool:
    network, state, _ = found
    return set(network.state_dict()) == set(state)

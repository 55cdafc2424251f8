"""The oracle: a frozen copy of the model in a form that is faster, for the search alone.

The verifier stays the model as given, so a form can cost a claim but never make one. Of two networks that compute the
same function one may still search otherwise than the other by a rounding, so a run keeps to the form in its run.json.
"""

import copy
import dataclasses
import statistics
import time
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from robusteval.attacks import losses
from robusteval.attacks.base import Query
from robusteval.classifier import Normalised, Prepared, Tempered
from robusteval.engine import stem
from robusteval.engine.memory import OutOfMemory
from robusteval.engine.passes import RAISED_BY_NETWORKS, Passes
from robusteval.engine.selftest import weighted
from robusteval.engine.stages import Precision
from robusteval.errors import UserError
from robusteval.models.transforms.inputs import Step
from robusteval.models.transforms.mix import Mixed
from robusteval.models.transforms.swap import Prepadded

Form = Literal[
    "given", "stem", "folded", "folded_stem", "channels_last", "folded_channels_last", "folded_channels_last_stem"
]

FORMS: tuple[Form, ...] = get_args(Form)
# How far logits of a float32 form may be from the model's, in units of the largest one: a few roundings.
TOLERANCE = 1e-5
_ROUGH = 0.1  # how far logits in bfloat16 may be apart: some roundings of 0.004 each
_COARSE = 1e-2  # how far their gradients may be, in units of their length: a rounding may switch a ReLU
# On a processor six networks with BatchNorm, from ResNet-32 to ResNet-50, gained 5 to 27 % of a pass by the order of
# channels on top of folding; small ones without it gained nothing sure. The first form that serves is taken.
_RULE: dict[tuple[str, bool], tuple[Form, ...]] = {
    ("cpu", True): ("folded_channels_last_stem", "folded_stem", "stem"),
    ("cpu", False): ("folded_channels_last", "folded"),
}
_ELSEWHERE: tuple[Form, ...] = ("folded",)
_WANT_CHANNELS_LAST = ("cuda",)  # in bfloat16
_ORDERED: dict[Form, Form] = {"given": "channels_last", "folded": "folded_channels_last"}
_PAIRS = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A form that serves, by how much its logits differ from the model's, and why it was taken."""

    form: Form
    difference: float
    because: str

    def facts(self) -> dict[str, Any]:
        """Return what run.json says of it."""
        return {"form": self.form, "difference": self.difference, "because": self.because}


def choose(passes: Passes, images: Tensor, labels: Tensor, wish: str, *, gradients: bool) -> Choice:
    """Return the form for a frozen model: ``wish`` is a form, ``rule`` (the same each time) or ``auto`` (by the clock).

    Falls back to the model as given where a form cannot be made or answers otherwise. Raises UserError where the form
    was wished for by name.
    """
    given = Choice(form="given", difference=0.0, because="as given")
    if wish == "given":
        return given
    if wish == "auto":
        tried = [try_form(passes, images, form, gradients=gradients) for form in FORMS[1:]]
        served = [given, *(one for one in tried if isinstance(one, Choice))]
        fastest = min(timed(passes, served, images, labels, gradients=gradients), key=lambda row: row[1])[0]
        return Choice(form=fastest.form, difference=fastest.difference, because="fastest by the clock")
    named: Form | None = next((form for form in FORMS if form == wish), None)
    because = ""
    for form in (named,) if named else rule(passes.module):
        found = try_form(passes, images, form, gradients=gradients)
        if isinstance(found, Choice):
            return dataclasses.replace(found, because="as named") if named else found
        because = found
    if named is not None:
        raise UserError(f"engine.oracle={wish}: {because}; use engine.oracle=rule")
    return Choice(form="given", difference=0.0, because=because)


def rule(module: nn.Module) -> tuple[Form, ...]:
    """Return the forms to try in order, by where the network is (its images may be elsewhere) and what it has."""
    weights = next(module.parameters(), None)
    device = "cpu" if weights is None else weights.device.type
    return _RULE.get((device, stem.within(module)), _ELSEWHERE)


def try_form(passes: Passes, images: Tensor, form: Form, *, gradients: bool) -> Choice | str:
    """Return the form with its logits' difference on images [n, C, H, W], or a sentence on why it does not serve.

    With ``gradients`` those are compared as well, coarsely: they are sums of many terms, and lead the search only.
    """
    try:
        module = build(passes.module, form, "float32")
    except UserError as error:
        return str(error)
    query = Query(points=images, loss=weighted if gradients else None)
    try:
        due = passes.ask(query)
    except UserError:  # it has none, which a check says by its name
        query = Query(points=images)
        due = passes.ask(query)
    try:
        came = Passes(module=module, batch=passes.batch).ask(query)
    except UserError as error:  # such as a view of what now lies otherwise in memory
        return f"the model does not run in the form {form} ({type(error.__cause__).__name__})"
    difference = _difference(came.logits, due.logits)
    if difference > TOLERANCE:
        return f"the form {form} answers otherwise than the model (by {difference:.2g} of the largest logit)"
    if due.gradient is not None:
        theirs, ours = due.slope.nan_to_num(0, 0, 0), came.slope.nan_to_num(0, 0, 0)
        if (ours - theirs).norm() > _COARSE * theirs.norm():
            return f"the form {form} has other gradients than the model"
    return Choice(form=form, difference=difference, because="by rule: the same answers in less time")


def _difference(came: Tensor, due: Tensor) -> float:
    """Return the largest difference in units of the largest number due or 1; infinite where finiteness differs."""
    if not torch.equal(came.isfinite(), due.isfinite()):
        return float("inf")
    scale = max(float(due.abs().nan_to_num(0, 0, 0).max()), 1.0)
    return float((came - due).abs().nan_to_num(0, 0, 0).max()) / scale


def build(module: nn.Module, form: Form, precision: Precision) -> nn.Module:
    """Return the model, frozen by the caller, in a form and precision; the model itself where nothing is to change.

    Raises UserError where it cannot be copied or folded.
    """
    if form == "given" and precision == "float32":
        return module
    copied = _folded(module) if form.startswith("folded") else _copy(module)
    if form.endswith("stem") and not stem.replace(copied):
        raise UserError("the model has no strided convolution of an image's few channels")
    if precision == "bfloat16":
        copied = _lowered(copied)
    if "channels_last" in form:
        if any(tensor.ndim == 5 for tensor in (*copied.parameters(), *copied.buffers())):
            raise UserError("the model has weights of five dimensions, which know no such order")
        copied = _ChannelsLast(copied.to(memory_format=torch.channels_last))  # pyright: ignore[reportCallIssue]
    return copied.eval()


def lowered(passes: Passes, form: Form, images: Tensor, *, gradients: bool) -> nn.Module:
    """Return the frozen model in a form and bfloat16; on CUDA also with channels last where ``images`` fare alike so.

    Its tensor cores want that order: on an H100 networks from ResNet-32 to ResNet-50 took 0.7 to 0.8 of the time. The
    order follows from form and device, so that run.json need not name it. Raises UserError where the model cannot be
    copied or folded.
    """
    given = build(passes.module, form, "bfloat16")
    weights = next(passes.module.parameters(), None)
    if form not in _ORDERED or weights is None or weights.device.type not in _WANT_CHANNELS_LAST:
        return given
    try:
        module = build(passes.module, _ORDERED[form], "bfloat16")
        query = Query(points=images, loss=weighted if gradients else None)
        due, came = (Passes(module=each, batch=passes.batch).ask(query) for each in (given, module))
    except (UserError, OutOfMemory):  # such as a view of what now lies otherwise in memory
        return given
    return module if _difference(came.logits, due.logits) <= _ROUGH else given


class _ChannelsLast(nn.Module):
    """Lets a network see images whose channels lie next to each other in memory."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.contiguous(memory_format=torch.channels_last))


class _Lowered(nn.Module):
    """A network in bfloat16 that takes and answers float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.bfloat16()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.bfloat16()).float()


def _lowered(module: nn.Module) -> nn.Module:
    """Lower a copy; what surrounds its network stays in float32, since bfloat16 hardly tells grey values apart."""
    if isinstance(module, Normalised):
        module.network = _Lowered(module.network)
        return module
    if isinstance(module, Prepared | Tempered):
        module.network = _lowered(module.network)
        return module
    if isinstance(module, Mixed):
        module.one, module.other = _lowered(module.one), _lowered(module.other)
        return module
    return _Lowered(module)


def _copy(module: nn.Module) -> nn.Module:
    if any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in module.modules()):
        raise UserError("the model has hooks, which a copy would set off as well")
    try:
        return copy.deepcopy(module)
    except RAISED_BY_NETWORKS as error:
        raise UserError(f"the model cannot be copied ({type(error).__name__})") from error


def _folded(module: nn.Module) -> nn.Module:
    """Return a copy whose convolutions take over the BatchNorm behind them.

    The graph only says which belong together: the copy still runs the network's own code.
    """
    copied = _copy(module)
    try:
        graph = _Tracer().trace(copied)
    except RAISED_BY_NETWORKS as error:
        raise UserError(f"the model's graph cannot be read ({type(error).__name__}), so nothing is folded") from error
    calls = [node for node in graph.nodes if node.op == "call_module"]
    modules = {node: copied.get_submodule(str(node.target)) for node in calls}
    count = {id(part): sum(other is part for other in modules.values()) for part in modules.values()}
    folded = 0
    for node in calls:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or source not in modules or len(source.users) != 1:
            continue
        convolution, norm = modules[source], modules[node]
        if _PAIRS.get(type(convolution)) is not type(norm) or count[id(convolution)] + count[id(norm)] > 2:
            continue
        if norm.running_mean is None or norm.training:
            continue
        copied.set_submodule(str(source.target), fuse_conv_bn_eval(convolution, norm))  # pyright: ignore[reportArgumentType]
        copied.set_submodule(str(node.target), nn.Identity())
        folded += 1
    if not folded:
        raise UserError("the model has no BatchNorm that a convolution could take over")
    return copied


class _Tracer(fx.Tracer):
    """Reads a graph without looking into what transforms put there, which decides by the values that it sees."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Step | Prepadded) or super().is_leaf_module(m, module_qualified_name)


def timed(
    passes: Passes, choices: list[Choice], images: Tensor, labels: Tensor, *, gradients: bool, rounds: int = 7
) -> list[tuple[Choice, float]]:
    """Return each choice with its median seconds a pass of ``passes.batch`` images, measured in turns."""
    size = passes.batch
    points, y = images.repeat(-(-size // len(images)), 1, 1, 1)[:size], labels.repeat(-(-size // len(labels)))[:size]
    loss = (lambda logits: losses.cross_entropy(logits, y)) if gradients else None
    query = Query(points=points, loss=loss)
    forms = [Passes(module=build(passes.module, choice.form, "float32"), batch=size) for choice in choices]
    seconds: list[list[float]] = [[] for _ in forms]
    for turn in range(rounds + 1):
        for number, form in enumerate(forms):
            begun = time.perf_counter()
            form.ask(query)
            if points.is_cuda:
                torch.cuda.synchronize()
            if turn:  # the first round warms up
                seconds[number].append(time.perf_counter() - begun)
    return [(choice, statistics.median(taken)) for choice, taken in zip(choices, seconds, strict=True)]

"""Checks of the model itself, from what a look at a few images found before the run."""

from typing import Any

from robusteval.checks.verdict import Check, verdict


def checks(run: dict[str, Any]) -> list[Check]:
    """Return the checks of the facts in run.json; those on gradients only where the attack asks for gradients."""
    facts = run["model_facts"]
    found = [deterministic(run), batch(facts), outputs(facts)]
    if "forward" in facts:
        found += [eval_mode(facts), autograd(facts), quantised(facts)]
    if "zero_gradients" in facts:
        found += [zero_gradients(facts), gradient(facts)]
    if "saturated" in facts:
        found.append(saturated(facts))
    return found


def deterministic(run: dict[str, Any]) -> Check:
    """Whether the model gives the same images the same logits."""
    if run["model_facts"]["deterministic"]:
        return verdict("deterministic", "pass", "the same images got the same logits twice")
    mean = f"the model is randomised: each verdict is the mean softmax of {run['draws']} passes"
    if run["plan"]["averages_gradients"] or not run["plan"]["gradients"]:
        return verdict(
            "deterministic",
            "warn",
            f"{mean}, and the attack averages its gradients or uses none",
            "read the number as that of the mean prediction",
        )
    return verdict(
        "deterministic",
        "fail",
        f"{mean}, but single gradients mislead the attack",
        "use attack=autoattack attack.version=rand, attack.eot=20 where the attack has it, or switch randomness off",
    )


def batch(facts: dict[str, Any]) -> Check:
    """Whether an image's logits depend on its neighbours in the batch."""
    moved = facts["batch_dependence"]
    if moved is None:
        return verdict("batch", "skipped", "of a randomised model it cannot be said whether neighbours matter")
    if moved < 1e-3:
        return verdict("batch", "pass", "an image's logits do not depend on its neighbours in the batch")
    return verdict(
        "batch",
        "fail",
        f"logits depend on which other images are in the batch (they moved by {moved:.2g} of their spread), as with "
        "BatchNorm on the statistics of the batch: predictions are not those of a single image, so no robustness is "
        "measured",
        "make the network use running statistics in eval mode",
    )


def outputs(facts: dict[str, Any]) -> Check:
    """Whether the model answers logits."""
    if facts["outputs"] == "logits":
        return verdict("logits", "pass", "the model answers logits, not probabilities")
    if facts["outputs"] == "log_probabilities":
        return verdict("logits", "pass", "the model answers log-probabilities, which serve as logits")
    return verdict(
        "logits",
        "fail",
        "the model answers probabilities: the losses take a softmax once more, which flattens gradients and confidence "
        "and makes it look more robust",
        "return the logits before the softmax",
    )


def eval_mode(facts: dict[str, Any]) -> Check:
    """Whether eval() reached every part of the model."""
    training = facts["forward"]["training"]
    if not training:
        return verdict("eval_mode", "pass", "every part of the model is in eval mode")
    harmful = [name for name, matters in training.items() if matters]
    named = ", ".join((harmful or list(training))[:3])
    return verdict(
        "eval_mode",
        "fail" if harmful else "warn",
        f"{len(training)} parts of the model stay in training mode after eval() ({named})"
        + (", and dropout or normalisation there answers otherwise than in use" if harmful else ""),
        "let eval() through to them, or replace what they do by what the network does in use",
    )


def autograd(facts: dict[str, Any]) -> Check:
    """Whether the forward pass uses autograd itself, as defences do that adapt to each image."""
    match facts["forward"]["autograd"]:
        case "none":
            return verdict("autograd", "pass", "the forward pass leaves autograd alone")
        case "backward":
            why = (
                "the forward pass runs a backward pass of its own, so the model adapts to each image while it is judged"
            )
        case _:
            why = "the forward pass switches gradients on where they were off, so it may adapt to the image"
    return verdict(
        "autograd",
        "fail",
        f"{why}; attacks on a fixed network overstate the robustness of such models (Croce et al. 2022)",
        "attack the adaptation too, and evaluate the network without it beside",
    )


def quantised(facts: dict[str, Any]) -> Check:
    """Whether logits follow small changes of the image at all."""
    count, n = facts["unmoved"], facts["images"]
    if count is None:
        return verdict("quantised", "skipped", "of a randomised model it cannot be said whether it rounds its input")
    if facts.get("constant"):
        return verdict("quantised", "skipped", "the model answers the same to every image")
    if 2 * count <= n:
        return verdict("quantised", "pass", "logits follow changes far below a grey value")
    return verdict(
        "quantised",
        "fail",
        f"for {count} of {n} images the logits stay the same to the last bit when every value moves by 1e-4, as where "
        "the input is rounded or compressed, or computed in low precision: steps smaller than the rounding are lost, "
        "and gradients are zero or made up",
        "attack the network behind the rounding too, and use attack=square",
    )


def zero_gradients(facts: dict[str, Any]) -> Check:
    """Whether gradients are zero: what flattens them also blinds the attack."""
    count, n = facts["zero_gradients"], facts["images"]
    if not count:
        return verdict("gradient_zero", "pass", f"none of {n} images has a gradient of zero")
    if facts.get("constant"):
        return verdict(
            "gradient_zero",
            "warn",
            "the model answers the same to every image, so there is nothing that an attack could change",
            "look whether its weights were loaded",
        )
    return verdict(
        "gradient_zero",
        "fail" if count > n / 10 else "warn",
        f"{count} of {n} images have a gradient of zero, so an attack by gradients stands still there, as behind a "
        "quantised input or saturated units",
        "use attack=square, or straight-through gradients in the network",
    )


def gradient(facts: dict[str, Any]) -> Check:
    """Whether logits move as their gradient says."""
    count, n = facts["misleading_gradients"], facts["images"]
    if count is None:
        return verdict("gradient", "skipped", "of a randomised model differences of logits say nothing of gradients")
    if count <= n / 10:
        return verdict("gradient", "pass", f"logits move as the gradient says for {n - count} of {n} images")
    return verdict(
        "gradient",
        "fail",
        f"for {count} of {n} images logits do not move as their gradient says (off by more than a factor of 2), as "
        "with quantised inputs, k-winner activations or gradients of another function: the attack is misled and "
        "robustness overstated",
        "use attack=square too, and an attack adapted to the network",
    )


def saturated(facts: dict[str, Any]) -> Check:
    """Whether the cross-entropy still has a gradient: of huge logits it is exactly zero."""
    count, n = facts["saturated"], facts["images"]
    if count <= n / 10:
        return verdict("saturated", "pass", "the cross-entropy has a gradient wherever the logits have one")
    return verdict(
        "saturated",
        "fail",
        f"for {count} of {n} images the cross-entropy has a gradient of exactly zero though the logits have one, as "
        "with logits scaled up far beyond 100: attacks by that loss stand still, and confidence means nothing",
        "undo the scaling; losses that do not mind it (attack.loss=dlr, margin) show what is behind",
    )

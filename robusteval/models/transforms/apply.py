"""From a classifier and a list of transforms to the transformed classifier, under a name and digest of its own."""

import copy
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Sequence

from robusteval.classifier import Classifier
from robusteval.errors import UserError
from robusteval.models.transforms.base import Facts, Material, Transform


def check_order(transforms: Sequence[Transform]) -> None:
    """Raise UserError where a transform stands where it cannot: behind one that is last, or that is randomised."""
    for before, after in itertools.pairwise(transforms):
        if before.last:
            raise UserError(
                f"transform=[{','.join(one.method for one in transforms)}]: {before.method} rescales what all others "
                f"answer, so it comes last; put {after.method} before it"
            )
    if transforms and transforms[-1].last and any(one.randomised for one in transforms):
        randomised = next(one.method for one in transforms if one.randomised)
        raise UserError(
            f"transform={transforms[-1].method} with {randomised}: one pass is rescaled, and a randomised model is "
            f"judged by the mean of several, so what is printed would not be calibrated; leave one of them out"
        )


def transformed(classifier: Classifier, transforms: Sequence[Transform], material: Material) -> Classifier:
    """Return the classifier after all ``transforms`` in order; the one given stays as it is, as ``untransformed``.

    Its digest is that of the weights, the options and the images that something was fitted to: of what was fitted only
    the last bits depend on the processor. Raises UserError where a transform cannot be done.
    """
    if not transforms:
        return classifier
    network, facts = classifier.module, []
    try:
        network = copy.deepcopy(network)
    # A user's network may hold anything, and some of it cannot be copied.
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"transform={transforms[0].method}: the network cannot be copied ({type(error).__name__}: {error}), and "
            "the clean accuracy without the transform is asked of the original"
        ) from error
    now = dataclasses.replace(classifier, module=network.eval())
    for transform in transforms:
        module, told = transform.apply(now, material)
        facts.append({"method": transform.method, **dataclasses.asdict(transform), **told})
        name = f"{now.name}+{transform.label()}"
        now = dataclasses.replace(now, module=module.eval(), name=name)
    return dataclasses.replace(
        now, digest=_digest(classifier, transforms, facts), untransformed=classifier, transforms=tuple(facts)
    )


def _digest(classifier: Classifier, transforms: Sequence[Transform], facts: Sequence[Facts]) -> str:
    met = [
        [one.method, dataclasses.asdict(one), {key: value for key, value in told.items() if key.endswith("digest")}]
        for one, told in zip(transforms, facts, strict=True)
    ]
    canonical = json.dumps([classifier.digest, met], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()

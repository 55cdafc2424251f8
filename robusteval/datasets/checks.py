"""What could make a number meaningless, looked at before the first pass: does this dataset fit this classifier?"""

from collections import Counter

import torch
from torch import Tensor

from robusteval.classifier import Classifier
from robusteval.datasets.base import Dataset
from robusteval.datasets.names import imagenet_wnids
from robusteval.datasets.pixels import check_pixels
from robusteval.errors import UserError

IMAGENET_CLASSES = 1000
# Two lists of ImageNet's names disagree about a handful of words; a list in another order disagrees about nearly all.
MISPLACED = 0.1


def check(dataset: Dataset, classifier: Classifier, images: Tensor) -> None:
    """Raise UserError where images (a first batch [n, C, H, W]), labels or classes cannot be this classifier's.

    Looks at type, range, finiteness, channels and size, label range, count of classes and their order. The sentence
    begins with the key and the file that the images came from.
    """
    check_images(images, classifier, dataset.origin)
    if images.numel() and bool(images.min() == images.max()):
        value = float(images.min())
        raise UserError(
            f"{dataset.origin}: every pixel of the first {len(images)} images is {value:.4g}; give pictures"
        )
    _check_labels(dataset, classifier)
    _check_names(dataset, classifier)


def check_images(images: Tensor, classifier: Classifier, origin: str) -> None:
    """Raise UserError unless ``images`` are finite float32 in [-0.01, 1.01] of the size the classifier takes.

    Cheap: to be called on every chunk that is read.
    """
    if images.dtype != torch.float32:
        raise UserError(f"{origin}: images are {images.dtype}, float32 in [0, 1] is needed; convert them")
    if images.ndim != 4:
        raise UserError(f"{origin}: images have shape {list(images.shape)}; [n, C, H, W] is needed")
    check_pixels(images, origin)
    wanted, found = classifier.input_size, tuple(images.shape[1:])
    if wanted is None or found == tuple(wanted):
        return
    if found[0] != wanted[0]:
        raise UserError(
            f"{origin}: images have {found[0]} channels, but model={classifier.name} takes {wanted[0]}; "
            "give images with that many channels, or another model"
        )
    raise UserError(
        f"{origin}: images are {found[1]}x{found[2]} (height x width), but model={classifier.name} takes "
        f"{wanted[1]}x{wanted[2]}; give images of that size, or another model"
    )


def _check_labels(dataset: Dataset, classifier: Classifier) -> None:
    low, high, classes = int(dataset.labels.min()), int(dataset.labels.max()), classifier.classes
    if low < 0:
        raise UserError(f"{dataset.origin}: labels begin at {low}; number the classes from 0")
    if high >= classes:
        from_one = " (do they count from 1?)" if low == 1 and high == classes else ""
        raise UserError(
            f"{dataset.origin}: labels go up to {high}{from_one}, but model={classifier.name} has {classes} classes, "
            f"0 to {classes - 1}; give the labels that belong to it"
        )
    names = dataset.class_names
    if names is None or len(names) == classes:
        return
    advice = "give the model and the data of the same classes"
    if classes == IMAGENET_CLASSES and set(names) <= set(imagenet_wnids()):
        advice = "for a part of ImageNet in folders by WordNet id use dataset=imagenet, which gives them its labels"
    raise UserError(f"{dataset.origin}: {len(names)} classes, but model={classifier.name} has {classes}; {advice}")


def _check_names(dataset: Dataset, classifier: Classifier) -> None:
    """Refuse a different order of the same classes: the classical way to an accuracy of one in a thousand."""
    if dataset.class_names is None or classifier.class_names is None:
        return
    ours, theirs = _places(dataset.class_names), _places(classifier.class_names)
    shared = ours.keys() & theirs.keys()
    misplaced = sorted((ours[name], theirs[name], name) for name in shared if ours[name] != theirs[name])
    if len(misplaced) <= MISPLACED * len(shared):
        return
    label, class_, name = misplaced[0]
    raise UserError(
        f"{dataset.origin}: the classes are in another order than those of model={classifier.name}: '{name}' is label "
        f"{label} here but class {class_} there ({len(misplaced)} such); bring both into one order"
    )


def _places(names: tuple[str, ...]) -> dict[str, int]:
    """Return the index by name, for names that are there once; 'tench, Tinca tinca' is the same as 'Tench'."""
    plain = [name.split(",")[0].strip().replace("_", " ").casefold() for name in names]
    count = Counter(plain)
    return {name: index for index, name in enumerate(plain) if count[name] == 1}

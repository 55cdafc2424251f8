"""A network that looks at larger pictures through a window in their middle, so that the window can be moved."""

import dataclasses

from torch import Tensor, nn

from robusteval.classifier import Classifier
from robusteval.errors import UserError


class Window(nn.Module):
    """Gives a network the images [n, C, H, W] without the ``margin`` outermost pixels on each side."""

    def __init__(self, network: nn.Module, margin: int) -> None:
        super().__init__()
        self.network, self.margin = network, margin

    def forward(self, images: Tensor) -> Tensor:
        inner = slice(self.margin, -self.margin)
        return self.network(images[..., inner, inner])


def widened(classifier: Classifier, margin: int) -> Classifier:
    """Return a classifier of pictures with ``margin`` more pixels on each side of its crop, which sees the crop alone.

    Raises UserError where the model does not say how pictures are cropped, or the picture ends at the crop.
    """
    if not margin:
        return classifier
    prepared, advice = classifier.preprocessing, "use attack.edge=cyclic"
    if prepared.crop is None:
        raise UserError(
            f"attack.edge=window moves the crop in the larger picture, and model={classifier.name} states no crop; "
            f"{advice}"
        )
    resized = prepared.resize if isinstance(prepared.resize, tuple) else (prepared.resize, prepared.resize)
    for resize, crop in zip(resized, prepared.crop, strict=True):
        if resize is not None and resize - crop < 2 * margin:
            raise UserError(
                f"attack.edge=window needs {margin} pixels around the crop, and model={classifier.name} crops {crop} "
                f"of {resize}; {advice}"
            )
    size = classifier.input_size
    return dataclasses.replace(
        classifier,
        module=Window(classifier.module, margin),
        input_size=None if size is None else (size[0], size[1] + 2 * margin, size[2] + 2 * margin),
        preprocessing=dataclasses.replace(prepared, around=margin),
    )


def check(classifier: Classifier, shape: tuple[int, int, int]) -> None:
    """Raise UserError where a dataset did not give the margin: its images [C, H, W] are not cut from larger ones."""
    prepared = classifier.preprocessing
    if not prepared.around or prepared.crop is None:
        return
    due = tuple(side + 2 * prepared.around for side in prepared.crop)
    if shape[1:] != due:
        raise UserError(
            f"attack.edge=window needs images of {due[0]} x {due[1]} (the crop and what is around it), and this "
            f"dataset's are of {shape[1]} x {shape[2]}, with nothing around them; use attack.edge=cyclic"
        )

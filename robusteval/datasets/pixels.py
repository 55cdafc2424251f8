"""The range of pixels: the most frequent mistake in evaluations is to hand over normalised images."""

from torch import Tensor

from robusteval.errors import UserError

SLACK = 0.01  # resizing with a cubic filter in floating point overshoots by about this much


def check_pixels(images: Tensor, origin: str) -> None:
    """Raise UserError unless ``images`` (any shape, floating point) are finite and in [-0.01, 1.01].

    One pass over the data, cheap beside decoding. ``origin`` opens the sentence: the key and the file.
    """
    if images.numel() == 0:
        return
    low, high = (float(value) for value in images.aminmax())  # either is NaN where any pixel is
    if not (low > float("-inf") and high < float("inf")):
        raise UserError(f"{origin}: some pixels are not finite (NaN or infinite); repair or leave out those images")
    if low >= -SLACK and high <= 1 + SLACK:
        return
    found = f"{origin}: pixels must lie in [0, 1], but go from {low:.4g} to {high:.4g}"
    if low >= -SLACK and high > 2:
        raise UserError(f"{found}; they look like grey values from 0 to 255: divide by 255, or give them as uint8")
    raise UserError(
        f"{found}; they look normalised: give the images before normalisation, and the mean and sd to the model "
        "(model.mean=, model.sd=)"
    )

"""What the number of each one-parameter attack is, in words."""

_PARAMETERS = {
    "solarize": "threshold: pixels at or above it are inverted",
    "posterize": "bits that are kept",
    "invert": "1: the negative, 0: the image",
    "gamma": "gamma: darker above 1",
    "contrast": "contrast factor",
    "brightness": "added to every pixel",
    "hue": "turns of the colour wheel",
    "rotate": "angle in degrees",
    "translate": "window, row by row from the upper left",
    "low_pass": "share of the frequencies kept, from the lowest",
    "high_pass": "share of the frequencies kept, from the highest",
    "jpeg": "JPEG quality",
}


def parameter_of(attack: str) -> str:
    """Return in words what the number of a one-parameter attack is."""
    return _PARAMETERS.get(attack, f"the number of {attack}")

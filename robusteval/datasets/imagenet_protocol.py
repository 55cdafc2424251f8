"""How pictures of ImageNet become inputs where the model does not say."""

from robusteval.classifier import Preprocessing

DEFAULT = Preprocessing(resize=256, crop=(224, 224))


def protocol(preprocessing: Preprocessing) -> Preprocessing:
    """Return the model's own preprocessing, or the usual Resize(256), CenterCrop(224) where it states none."""
    return DEFAULT if preprocessing.resize is None and preprocessing.crop is None else preprocessing

"""A network that the user's own Python function returns."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robusteval.classifier import Classifier
from robusteval.errors import UserError
from robusteval.models import entry as entries
from robusteval.models.described import Described
from robusteval.models.weights import digest_of, fill, read

# What a Classifier states itself, so that an option could only contradict it.
_STATED = ("weights", "mean", "sd", "input_size", "classes", "class_names", "resize", "crop")


@dataclass(frozen=True, kw_only=True)
class Python(Described):
    """``entry`` returns a torch.nn.Module, which the other options describe, or a Classifier, which describes itself.

    ``weights``, where given, are put into the module.
    """

    source: Literal["python"] = "python"
    name: str = "python"

    def missing(self) -> str | None:
        """Return a sentence where the file of the entry or of the weights does not exist."""
        if self.entry is None:
            return "model=python needs model.entry=package.module:function or model.entry=path/to/file.py:function"
        if sentence := entries.missing(self.entry):
            return sentence
        if self.path is not None and not self.path.is_file():
            return (
                f"model.weights={self.weights}: there is no file {self.path}; name a file of weights, or leave it out"
            )
        return None

    def load(self) -> Classifier:
        """Import and call the entry. Raises UserError where that fails, or what it returns does not fit the options."""
        if self.entry is None or self.missing() is not None:
            raise UserError(str(self.missing()))
        network = entries.call(self.entry)
        if isinstance(network, Classifier):
            return self._stated(network)
        if self.path is not None:
            fill(network, read(self.path), source=str(self.path))
        return self.described(network, source=f"{self.source} {Path(self.entry).name}", input_size=self.input_size)

    def _stated(self, classifier: Classifier) -> Classifier:
        for option in _STATED:
            if getattr(self, option) is not None:
                raise UserError(
                    f"model.{option} came, but model.entry={self.entry} returned a Classifier, which states that "
                    f"itself; leave out model.{option}"
                )
        module = classifier.module.eval()
        return dataclasses.replace(classifier, module=module, digest=digest_of(module))

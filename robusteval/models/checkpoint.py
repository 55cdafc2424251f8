"""The user's own weights for a known architecture, or for a network that the user's own function builds."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from robusteval.classifier import Classifier
from robusteval.errors import UserError
from robusteval.models import architecture
from robusteval.models import entry as entries
from robusteval.models.assemble import Size
from robusteval.models.described import Described
from robusteval.models.weights import StateDict, file_sha256, fill, read

_NO_NAME = "checkpoint"


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Described):
    """``weights`` for the architecture ``name``: torchvision's of that name, else timm's; timm/NAME is always timm's.

    Or for the network that ``entry`` returns, and ``name`` is then a mere label. ``prefix`` is cut from the names in
    the file, ``key`` chooses among several state dicts in it. The number of classes is read off the last layer in the
    file, ``input_size`` is the architecture's unless given.
    """

    source: Literal["checkpoint"] = "checkpoint"
    name: str = _NO_NAME
    key: str | None = None
    prefix: str | None = None

    def missing(self) -> str | None:
        """Return a sentence where the weights or the network are not named or do not exist."""
        if self.path is None:
            return "model=checkpoint needs model.weights=FILE: a .safetensors, or what torch.save wrote"
        if not self.path.is_file():
            return f"model.weights={self.weights}: there is no file {self.path}; name a file of weights"
        if self.entry is not None:
            return entries.missing(self.entry)
        if self.name == _NO_NAME:
            return (
                "model=checkpoint needs model.name=ARCHITECTURE (of torchvision or timm) or "
                "model.entry=path/to/file.py:function"
            )
        return None

    def load(self) -> Classifier:
        """Return the classifier. Raises UserError where the file holds no weights, or others than the network's."""
        if self.path is None or self.missing() is not None:
            raise UserError(str(self.missing()))
        state = read(self.path, key=self.key, prefix=self.prefix)
        network, state, size = self._network(state)
        fill(network, state, source=str(self.path))
        return self.described(
            network, source=f"{self.source} {self.path.name} sha256:{file_sha256(self.path)}", input_size=size
        )

    def _network(self, state: StateDict) -> tuple[nn.Module, StateDict, Size | None]:
        if self.entry is None:
            return architecture.fitting(self.name, state, classes=self.classes, input_size=self.input_size)
        network = entries.call(self.entry)
        if isinstance(network, Classifier):
            raise UserError(
                f"model.entry={self.entry} returned a Classifier; for model=checkpoint return the network "
                "(torch.nn.Module)"
            )
        return network, state, self.input_size

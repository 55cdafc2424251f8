"""What it takes to compute chunks of a run: loaded, on the device, frozen. Built alike by every process that does."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robusteval.classifier import Classifier
from robusteval.config import Config
from robusteval.datasets.base import Dataset
from robusteval.engine import oracle
from robusteval.engine.devices import path_for, slots_for
from robusteval.engine.memory import OutOfMemory, ran_out
from robusteval.engine.passes import QUANTUM, Chance, Passes, frozen, physical
from robusteval.engine.search import Searcher
from robusteval.engine.stages import Precision, Stage, stages_of
from robusteval.engine.transfer import to_device
from robusteval.engine.units import Work
from robusteval.evidence import images
from robusteval.evidence.folder import RunFolder
from robusteval.options import Evidence


@dataclass(frozen=True, kw_only=True)
class Session:
    """A model ready for passes, beside its data; ``first`` [n, C, H, W] are the first images, on the device."""

    config: Config
    classifier: Classifier
    dataset: Dataset
    device: torch.device
    stages: Sequence[Stage]
    slots: int
    passes: Passes
    first: Tensor

    def with_slots(self, slots: int) -> "Session":
        """Return the same session with another number of slots."""
        return dataclasses.replace(self, slots=slots, passes=dataclasses.replace(self.passes, batch=physical(slots)))

    def work(self, run: RunFolder, tick: Callable[[int], None]) -> Work:
        """Return the work of a run that has its run.json; ``tick`` counts samples and may raise to interrupt."""
        config, draws, form = self.config, run.run["draws"], run.run["oracle"]["form"]
        precisions: set[Precision] = {"float32", *(stage.precision for stage in self.stages)}
        chance = Chance(seed=config.seed) if draws > 1 else None
        return Work(
            run=run,
            dataset=self.dataset,
            threat=config.threat,
            stages=self.stages,
            searcher=Searcher(
                oracles={
                    precision: dataclasses.replace(
                        self.passes, module=oracle.build(self.passes.module, form, precision), chance=chance
                    )
                    for precision in precisions
                },
                verifier=dataclasses.replace(self.passes, chance=chance, draws=draws),
                chance=chance,
                seed=config.seed,
                slots=self.slots,
                path=path_for(self.device, config.engine.path),
                stop=config.engine.stop,
                tick=tick,
            ),
            keep=images.policy(self._evidence(run), len(self.dataset), self.first[0].numel() * 4, config.seed),
            device=self.device,
        )

    def _evidence(self, run: RunFolder) -> Evidence:
        """Return which images the run keeps: what whoever began it asked for, or the files would not fit together."""
        limit = run.run.get("evidence_limit", self.config.evidence.limit_bytes)  # not in runs of earlier versions
        return Evidence(keep=run.run["evidence"], limit=str(limit))


def load(config: Config) -> tuple[Classifier, Dataset]:
    """Return the model and the data that a configuration names, before anything is asked of them."""
    classifier = config.model.load()
    return classifier, config.dataset.load(classifier.preprocessing, config.seed)


@contextlib.contextmanager
def opened(
    config: Config,
    classifier: Classifier,
    dataset: Dataset,
    device: torch.device,
    threads: int | None,
    most: int | None = None,
) -> Iterator[Session]:
    """Yield a session on ``device``, with so many threads of the CPU (None: as torch decides), until the block ends.

    It has no more slots than ``most``. Raises OutOfMemory where the device cannot hold the model.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    module = _moved(classifier, device)
    with frozen(module):
        first = to_device(dataset.images(range(min(len(dataset), 2 * QUANTUM))), device)
        weights = sum(part.numel() for part in module.parameters())
        slots = config.engine.slots or slots_for(device, first.shape[-1], weights)
        slots = min(slots, config.chunk, most or config.chunk)
        yield Session(
            config=config,
            classifier=classifier,
            dataset=dataset,
            device=device,
            stages=stages_of(config.attack, config.threat, config.engine.mode),
            slots=slots,
            passes=Passes(module=module, batch=physical(slots)),
            first=first,
        )


def _moved(classifier: Classifier, device: torch.device) -> nn.Module:
    try:
        return classifier.module.to(device)
    except RuntimeError as error:
        if not ran_out(error):
            raise
        raise OutOfMemory(
            f"{device} has not enough memory for model={classifier.name}; use another by runtime.device"
        ) from error

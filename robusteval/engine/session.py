"""What it takes to compute chunks of a run: loaded, on the device, frozen. Built alike by every process that does."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robusteval.classifier import Classifier, Tempered
from robusteval.config import Config
from robusteval.datasets.base import Dataset
from robusteval.datasets.order import shuffled
from robusteval.engine import oracle, selftest
from robusteval.engine.devices import Across, path_for, slots_for
from robusteval.engine.material import material
from robusteval.engine.memory import OutOfMemory, ran_out
from robusteval.engine.passes import QUANTUM, Chance, Passes, frozen, physical
from robusteval.engine.recording import recorder_for
from robusteval.engine.search import Searcher
from robusteval.engine.stages import Precision, Stage, stages_of
from robusteval.engine.transfer import to_device
from robusteval.engine.units import Work
from robusteval.evidence import images
from robusteval.evidence.folder import RunFolder
from robusteval.models.transforms.apply import transformed
from robusteval.models.window import widened
from robusteval.options import Evidence


@dataclass(frozen=True, kw_only=True)
class Session:
    """A model ready for passes, beside its data; ``first`` [n, C, H, W] are the first images, on the device.

    ``network_on`` is another device than ``device`` where the former cannot hold all of the engine's numbers.
    ``plain`` are passes of the model before its transforms, where it has some.
    """

    config: Config
    classifier: Classifier
    dataset: Dataset
    device: torch.device
    network_on: torch.device
    stages: Sequence[Stage]
    slots: int
    passes: Passes
    first: Tensor
    plain: Passes | None = None

    def with_slots(self, slots: int) -> "Session":
        """Return the same session with another number of slots."""
        batch = physical(slots)
        plain = None if self.plain is None else dataclasses.replace(self.plain, batch=batch)
        return dataclasses.replace(self, slots=slots, passes=dataclasses.replace(self.passes, batch=batch), plain=plain)

    def work(self, run: RunFolder, tick: Callable[[int], None]) -> Work:
        """Return the work of a run that has its run.json; ``tick`` counts samples and may raise to interrupt."""
        config, draws, form = self.config, run.run["draws"], run.run["oracle"]["form"]
        precisions: set[Precision] = {"float32", *(stage.precision for stage in self.stages)}
        chance = Chance(seed=config.seed) if draws > 1 else None
        searched = oracle.build(self.passes.module, form, "float32")
        quantum = self._quantum(run, searched)
        return Work(
            run=run,
            dataset=self.dataset,
            threat=config.threat,
            stages=self.stages,
            searcher=Searcher(
                oracles={
                    precision: dataclasses.replace(
                        self.passes,
                        module=searched
                        if precision == "float32"
                        else oracle.lowered(self.passes, form, self.first, gradients=run.run["plan"]["gradients"]),
                        chance=chance,
                        quantum=quantum if precision == "float32" else QUANTUM,  # tried in float32
                    )
                    for precision in precisions
                },
                verifier=dataclasses.replace(self.passes, chance=chance, draws=draws, quantum=quantum),
                chance=chance,
                seed=config.seed,
                slots=self.slots,
                path=path_for(self.device, config.engine.path),
                recorder=recorder_for(self.device),
                stop=config.engine.stop,
                tick=tick,
            ),
            keep=images.policy(self._evidence(run), len(self.dataset), self.first[0].numel() * 4, config.seed),
            device=self.device,
            plain=self.plain,
            temperature=module.temperature if isinstance(module := self.passes.module, Tempered) else None,
        )

    def _quantum(self, run: RunFolder, searched: nn.Module) -> int:
        """Return to whose multiples this process pads its float32 batches, which changes no bit.

        So it is no part of the plan. A randomised network draws by the size of its batch, and gets 16.
        """
        if self.network_on.type != "cpu" or not run.run["bitwise"] or run.run["draws"] > 1:
            return QUANTUM
        found = selftest.quantum(dataclasses.replace(self.passes, module=searched), self.first)
        if searched is self.passes.module or found == QUANTUM:
            return found
        return selftest.quantum(self.passes, self.first)

    def _evidence(self, run: RunFolder) -> Evidence:
        """Return which images the run keeps: what whoever began it asked for, or the files would not fit together."""
        limit = run.run.get("evidence_limit", self.config.evidence.limit_bytes)  # not in runs of earlier versions
        return Evidence(keep=run.run["evidence"], limit=str(limit))


def load(config: Config) -> tuple[Classifier, Dataset]:
    """Return the model, transformed, and the data that a configuration names, before anything is asked of them."""
    classifier = widened(config.model.load(), config.attack.margin())
    dataset = config.dataset.load(classifier.preprocessing, config.seed)
    if config.transform:
        classifier = transformed(classifier, config.transform, material(config, classifier, dataset))
    return classifier, shuffled(dataset, config.seed) if config.stop.asked else dataset


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
    before = None if classifier.untransformed is None else _moved(classifier.untransformed, device)
    with frozen(module), contextlib.nullcontext() if before is None else frozen(before):
        # Of an Apple GPU only the network's arithmetic: it has no float64, in which distances are measured.
        home = torch.device("cpu") if device.type == "mps" else device
        first = to_device(dataset.images(range(min(len(dataset), 2 * QUANTUM))), home)
        weights = sum(part.numel() for part in module.parameters())
        slots = config.engine.slots or slots_for(device, first.shape[-1], weights)
        slots = min(slots, config.chunk, most or config.chunk)
        yield Session(
            config=config,
            classifier=classifier,
            dataset=dataset,
            device=home,
            network_on=device,
            stages=stages_of(config.attack, config.threat, config.engine.mode),
            slots=slots,
            passes=Passes(module=_on(module, device, home), batch=physical(slots)),
            first=first,
            plain=None if before is None else Passes(module=_on(before, device, home), batch=physical(slots)),
        )


def _on(module: nn.Module, device: torch.device, home: torch.device) -> nn.Module:
    """Return a network on ``device`` that takes and gives tensors at ``home``."""
    return module if home == device else Across(module, device)


def _moved(classifier: Classifier, device: torch.device) -> nn.Module:
    try:
        return classifier.module.to(device)
    except RuntimeError as error:
        if not ran_out(error):
            raise
        raise OutOfMemory(
            f"{device} has not enough memory for model={classifier.name}; use another by runtime.device"
        ) from error

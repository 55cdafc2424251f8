"""Which process runs where, on machines that are only pretended."""

import pytest
import torch

from robusteval.engine.devices import Across, devices_of, emulates_bfloat16, slots_for
from robusteval.errors import UserError


@pytest.mark.parametrize(
    ("name", "workers", "gpus", "wanted"),
    [
        ("auto", 1, 0, ["cpu"]),
        ("auto", 3, 0, ["cpu", "cpu", "cpu"]),
        ("cpu", 3, 8, ["cpu", "cpu", "cpu"]),
        ("auto", 1, 4, ["cuda:0"]),
        ("auto", 4, 4, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ("cuda", 2, 4, ["cuda:0", "cuda:1"]),
        ("cuda:1", 1, 4, ["cuda:1"]),
    ],
)
def test_each_process_gets_the_processor_or_a_gpu_of_its_own(
    name: str, workers: int, gpus: int, wanted: list[str]
) -> None:
    assert [str(device) for device in devices_of(name, workers, gpus)] == wanted


@pytest.mark.parametrize(
    ("name", "workers", "gpus", "said"),
    [
        ("cuda", 1, 0, "shows 0 CUDA devices"),
        ("cuda:4", 1, 4, "shows 4 CUDA devices"),
        ("auto", 5, 4, "there are 4; use runtime.workers=4"),
        ("cuda", 2, 1, "there is 1; use runtime.workers=1"),
        ("cuda:1", 2, 4, "there is 1; use runtime.workers=1"),
    ],
)
def test_what_is_not_there_is_refused(name: str, workers: int, gpus: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        devices_of(name, workers, gpus)


def test_an_apple_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="shows no Apple GPU"):
        devices_of("mps", 1, 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices_of("mps", 1, 0) == [torch.device("mps")]
    with pytest.raises(UserError, match=r"runtime\.workers=1"):
        devices_of("mps", 2, 0)


def test_a_network_across_devices_gives_its_answers_and_gradients_where_the_images_are() -> None:
    class Elsewhere(torch.nn.Module):
        """A network that is on a pretended device."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            went.append(images)
            return images.flatten(1) * torch.arange(12.0)

    went: list[torch.Tensor] = []
    images = torch.rand(3, 1, 3, 4, requires_grad=True)
    answer = Across(Elsewhere(), torch.device("cpu"))(images)
    answer.sum().backward()
    assert went
    assert images.grad is not None
    assert torch.equal(images.grad.flatten(1), torch.arange(12.0).expand(3, 12))


def test_only_tiny_networks_get_many_slots_on_the_processor() -> None:
    """Of the others nothing would be gained, and the memory of a large network's batch would be lost."""
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert slots_for(cpu, 28, 166_406) == slots_for(cpu, 32, 112_006) == 256
    assert slots_for(cpu, 32, 464_154) == slots_for(cpu, 64, 112_006) == 64
    assert slots_for(cpu, 224, 112_006) == 16
    assert slots_for(cuda, 32, 464_154) == 512


@pytest.mark.parametrize(
    ("device", "machine", "capability", "dear"),
    [
        ("cpu", "x86_64", "AVX2", True),
        ("cpu", "AMD64", "DEFAULT", True),
        ("cpu", "x86_64", "AVX512", False),
        ("cpu", "arm64", "DEFAULT", False),
        ("cuda", "x86_64", "AVX2", False),
    ],
)
def test_which_processors_have_no_bfloat16(device: str, machine: str, capability: str, dear: bool) -> None:
    assert emulates_bfloat16(torch.device(device), machine, capability) == dear

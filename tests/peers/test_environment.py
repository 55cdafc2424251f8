"""The second environment: what make peers installs, and in an order that leaves robustbench whole."""

import importlib
import importlib.metadata

import pytest

from robusteval.attacks.reference import library

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("module", ["pyautoattack", "torchattacks", "foolbox", "art"])
@pytest.mark.filterwarnings("ignore")
def test_the_libraries_are_there(module: str) -> None:
    importlib.import_module(module)


def test_robustbench_is_robustbenchs_own_and_not_the_copy_of_torchattacks() -> None:
    brought = {
        str(file)
        for file in importlib.metadata.distribution("torchattacks").files or []
        if file.parts[0] == "robustbench"
    }
    assert "robustbench/__init__.py" in brought, "else this environment proves nothing"
    assert not library.overwritten("robustbench")
    assert library.overwritten("torchattacks")
    assert library.clash() is None

"""The user's own function: found beside the caller, called, and told apart from our own mistakes."""

import sys

import pytest
import torch
from torch import nn

from robusteval.classifier import Classifier
from robusteval.errors import UserError
from robusteval.models.python import Python

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_file_beside_the_caller(tmp_path):
    (tmp_path / "mynet.py").write_text(NET)
    before = list(sys.path)
    classifier = Python(entry="mynet.py:build", name="mine", input_size=(3, 2, 2)).load()
    assert (classifier.classes, classifier.name, classifier.source) == (3, "mine", "python mynet.py:build")
    assert sys.path == before


def test_a_module_of_the_current_folder(tmp_path):
    (tmp_path / "package_for_entry").mkdir()
    (tmp_path / "package_for_entry" / "__init__.py").write_text("")
    (tmp_path / "package_for_entry" / "nets.py").write_text(NET)
    assert Python(entry="package_for_entry.nets:build").load().classes == 3


def test_a_file_may_import_its_neighbour_and_be_named_like_a_package(tmp_path):
    folder = tmp_path / "far"
    folder.mkdir()
    (folder / "neighbour_of_entry.py").write_text(NET)
    (folder / "timm.py").write_text("from neighbour_of_entry import build")
    assert Python(entry=str(folder / "timm.py") + ":build").load().classes == 3
    import timm

    assert hasattr(timm, "create_model")


def test_weights_are_put_in(tmp_path):
    (tmp_path / "mynet.py").write_text(NET)
    wanted = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    torch.save(wanted.state_dict(), tmp_path / "w.pt")
    classifier = Python(entry="mynet.py:build", weights="w.pt", mean=(0.5,), sd=(0.25,)).load()
    images = torch.rand(2, 3, 2, 2)
    torch.testing.assert_close(classifier.module(images), wanted((images - 0.5) * 4))


def test_a_classifier_describes_itself(tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\nfrom robusteval.classifier import Classifier\n"
        "def build():\n"
        "    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))\n"
        "    return Classifier(module=net, name='own', source='mine', classes=2, input_size=(1, 2, 2))\n"
    )
    classifier = Python(entry="own.py:build").load()
    assert isinstance(classifier, Classifier)
    assert (classifier.name, len(classifier.digest), classifier.module.training) == ("own", 64, False)
    with pytest.raises(UserError, match=r"model\.mean came.*leave out model\.mean"):
        Python(entry="own.py:build", mean=(0.5,), sd=(0.5,)).load()


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (None, r"needs model\.entry"),
        ("mynet.py", "names no function"),
        ("mynet.py:", "names no function"),
        (":build", "names no function"),
        ("mynet.py:build()", "names no function"),
        ("none.py:build", r"there is no file .*none\.py"),
        ("no_such_module:build", "no module 'no_such_module'"),
        ("no_such_module.inner:build", "no module 'no_such_module'"),
        ("mynet.py:biuld", "no function 'biuld'.*did you mean 'build'"),
        ("mynet.py:number", "no function 'number'"),
        ("mynet.py:returns_none", "returned a NoneType"),
        ("mynet.py:raises", r"raised ZeroDivisionError: division by zero \(mynet.py, line 6\)"),
        ("mynet.py:needs_more", "raised TypeError"),
        ("mynet.py:leaves", "raised SystemExit"),
        ("broken.py:build", r"raised SyntaxError.*broken\.py, line 2"),
        ("lacks.py:build", r"raised ModuleNotFoundError: No module named 'not_installed_here'.*lacks\.py, line 1"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, entry, says):
    (tmp_path / "mynet.py").write_text(
        NET.replace("\nfrom", "from")
        + "number = 3\n"
        + "def raises(): return 1 / 0\n"
        + "def returns_none(): pass\n"
        + "def needs_more(size): pass\n"
        + "def leaves(): raise SystemExit(0)\n"
    )
    (tmp_path / "broken.py").write_text("x = 1\ndef build(:\n")
    (tmp_path / "lacks.py").write_text("import not_installed_here\n")
    with pytest.raises(UserError, match=says) as caught:
        Python(entry=entry).load()
    assert "\n" not in str(caught.value)


def test_missing_looks_without_importing(tmp_path):
    (tmp_path / "loud.py").write_text("raise RuntimeError")
    assert Python(entry="loud.py:build").missing() is None
    assert "w.pt" in str(Python(entry="loud.py:build", weights="w.pt").missing())
    assert "none.py" in str(Python(entry="none.py:build").missing())

"""Five hundred wrong command lines: each answered by one sentence that names the key, by exit code 2, and by no work.

Every one is wrong by construction: what is drawn is where and how. A type that a field does not admit is told from its
annotation, a misspelt name from the names there are.
"""

import dataclasses
import random
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen

from robusteval import registry
from robusteval.groups import groups
from robusteval.options import Engine, Evidence, Runs, Runtime
from robusteval.threat import ThreatModel

COUNT, PROCESSES = 500, 20
GROUPS = groups()


@dataclass(frozen=True)
class Bad:
    """Overrides of which one is wrong, and what the answer must name (any of these)."""

    overrides: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Option:
    """One key, the overrides that make it exist, and what its field admits."""

    base: tuple[str, ...]
    key: str
    hint: Any


def options() -> list[Option]:
    """Return every key of every attack, model source, dataset, logger and section."""
    found: list[Option] = []

    def add(kind: type, section: str, *base: str) -> None:
        for name, hint in get_type_hints(kind, include_extras=True).items():
            if name in {field.name for field in dataclasses.fields(kind)}:
                found.append(Option(base, f"{section}.{name}", hint))

    for name in registry.ATTACKS:
        add(registry.lookup(registry.ATTACKS, "", name), "attack", f"attack={name}")
    chosen_as = {"bundled": "mnist_cnn", "padding": "mnist_padding"}
    for name in registry.MODELS:
        named = {"timm": "resnet18", "torchvision": "resnet18", "robustbench": "Wang2023Better_WRN-28-10"}
        needs = (f"model.name={named[name]}",) if name in named else ()
        add(registry.lookup(registry.MODELS, "", name), "model", f"model={chosen_as.get(name, name)}", *needs)
    for name in registry.DATASETS:
        add(registry.lookup(registry.DATASETS, "", name), "dataset", f"dataset={name}")
    add(registry.lookup(registry.LOGGERS, "", "wandb"), "logger", "logger=wandb")
    for kind, section in ((ThreatModel, "threat"), (Engine, "engine"), (Runtime, "runtime"), (Runs, "runs")):
        add(kind, section)
    add(Evidence, "evidence", "evidence=auto")
    return found


OPTIONS = options()

# What no field of a type takes. A number in a string and a whole number with a fraction of 0 are taken, so not here.
WRONG = {
    int: ("abc", "1.5", "8/255", "nan", "inf", "true", "[1]", "{a: 1}", "''", "1e300", str(2**40)),
    float: ("abc", "8/0", "8/255/3", "nan", "inf", "-inf", "true", "[0.5]", "{a: 1}", "''", "1e300"),
    bool: ("maybe", "7", "0.5", "[true]", "{a: 1}", "''"),
    str: ("7", "0.5", "true", "[a, b]", "{a: 1}"),
    "literal": ("bogus", "7", "true", "[a]", "{a: 1}", "''"),
    "numbers": ("abc", "7", "[abc]", "[[1]]", "[nan]", "[1, inf]", "[1, true]", "[1, null]", "{a: 1}"),
    "strings": ("abc", "7", "[1, 2]", "[[a]]", "{a: 1}"),
    "literals": ("abc", "7", "[bogus]", "[1]", "[[a]]", "[null]", "{a: 1}"),
    dict: ("abc", "7", "true", "[a]", "''"),
}


def wrong_values(hint: Any) -> Iterator[str]:
    """Yield values, as typed on the command line, that an annotation does not admit."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        inner = [part for part in arguments if part is not NoneType]
        for part in inner:
            # Where both a number and a list may stand, a value is wrong for both only if it has the form of one.
            for value in wrong_values(part):
                own_form = len(inner) == 1 or value.startswith("[") == (get_origin(part) is tuple)
                if own_form and value != "null":
                    yield value
        return
    yield "null"
    if origin is Annotated:
        yield from (value for value in wrong_values(arguments[0]) if value != "null")
        for limit in arguments[1:]:
            yield from beyond(limit)
    elif origin is Literal:
        yield from WRONG["literal"]
    elif origin is dict:
        yield from WRONG[dict]
    elif origin is tuple:
        words = "literals" if get_origin(arguments[0]) is Literal else "strings" if arguments[0] is str else "numbers"
        yield from WRONG[words]
        if Ellipsis not in arguments:
            yield from ("[1]", "[1, 1, 1, 1]", "[]")
    else:
        yield from WRONG[hint]


def beyond(limit: Any) -> Iterator[str]:
    """Yield values just outside a limit; a limit of another kind makes the test fail, so that none is left out."""
    assert isinstance(limit, Ge | Gt | Le | Lt | Interval | MinLen), f"this test knows no value beyond {limit}"
    if isinstance(limit, MinLen):
        yield "[]"
        return
    low, above, high, below = (getattr(limit, name, None) for name in ("ge", "gt", "le", "lt"))
    if low is not None:
        yield str(low - 1)
    if above is not None:
        yield from (str(above), str(above - 7))
    if high is not None:
        yield str(high + 1)
    if below is not None:
        yield from (str(below), str(below + 7))


def misspelt(word: str, taken: Sequence[str], draw: random.Random) -> str:
    """Return ``word`` with one slip of the keyboard, which is none of ``taken``."""
    while True:
        i = draw.randrange(1, max(2, len(word)))
        letter = draw.choice("abcdefghijklmnopqrstuvwxyz")
        other = draw.choice((word[:i] + word[i + 1 :], word[:i] + letter + word[i:], word[:i] + letter + word[i + 1 :]))
        if other not in taken and re.fullmatch(r"[a-z]\w*[a-z0-9]", other) and other not in ("null", "true", "false"):
            return other


def bad_value(draw: random.Random, key: str | None = None) -> Bad:
    option = draw.choice([option for option in OPTIONS if key in (None, option.key)])
    value = draw.choice(list(wrong_values(option.hint)))
    return Bad((*option.base, f"{option.key}={value}"), (option.key,))


def bad_key(draw: random.Random) -> Bad:
    option = draw.choice(OPTIONS)
    section, _, name = option.key.partition(".")
    taken = [other.key.partition(".")[2] for other in OPTIONS if other.key.startswith(section)]
    key = f"{section}.{misspelt(name, [*taken, 'method'], draw)}"
    return Bad(
        (*option.base, f"{draw.choice(('', '', '+', '++'))}{key}={draw.choice(('1', 'abc', 'null', '[1]'))}"), (key,)
    )


def bad_group(draw: random.Random) -> Bad:
    group = draw.choice(list(GROUPS))
    word = misspelt(group, [*GROUPS, "seed", "runs", "hydra"], draw)
    return Bad((f"{draw.choice(('', '+'))}{word}={draw.choice(GROUPS[group] or ['x'])}",), (word,))


def bad_option(draw: random.Random) -> Bad:
    group = draw.choice([name for name, known in GROUPS.items() if known])
    word = misspelt(draw.choice(GROUPS[group]).replace(".", ""), GROUPS[group], draw)
    word = draw.choice((word, word.upper(), f"../{group}/{word}", f"{word}/{word}", f"/etc/{word}", f"{word}.yaml"))
    return Bad((f"{group}={word}",), (word,))


def no_name(draw: random.Random) -> Bad:
    group = draw.choice([name for name in GROUPS if name != "experiment"])
    some = GROUPS[group][0]
    lists = () if group == "transform" else ("[]", f"[{some}]")
    value = draw.choice(("null", *lists, "{}", "1", "true", "0.5", f"[{some}, {some}]", f"{{{some}: 1}}", "", "nan"))
    return Bad((f"{group}={value}",), (f"{group}={value}", f"no {group} named"))


def bad_grammar(draw: random.Random) -> Bad:
    key = draw.choice([*(option.key for option in OPTIONS), *GROUPS, "seed"])
    tails = (
        "[1",
        "1]",
        "{a",
        "}",
        "(",
        "a)",
        "'x",
        '"x',
        "${",
        "[1,,2]",
        "a=b",
        "$x}",
        "1]2",
        "größe",
        "🦆",
        "模型",
        "f(",
    )
    text = draw.choice(
        [f"{key}={tail}" for tail in tails] + [f"{key}.=1", f".{key}=1", f"{key}..x=1", "=1", f"{key} x=1", f"ß{key}=1"]
    )
    return Bad((text,), (text,))


def no_sign(draw: random.Random) -> Bad:
    text = draw.choice(
        ["oops", "attack", "attack:pgd", "attack.steps", "-5", "--atack=pgd", "--steps", "-q", "🦆", "runs/x", ""]
    )
    return Bad(draw.choice(((text,), ("attack=pgd", text))), (text,))


def to_nothing(draw: random.Random) -> Bad:
    option = draw.choice([*OPTIONS, Option((), "seed", int)])
    to = draw.choice(
        ("nope", f"{option.key}", f"{option.key}.x", "oc.env:NO_SUCH_NAME", "nope:1", "attack.nope", "hydra:job.name")
    )
    return Bad((*option.base, f"{option.key}=${{{to}}}"), (option.key,))


def not_ours(draw: random.Random) -> Bad:
    group = draw.choice([name for name, known in GROUPS.items() if known])
    option, key = draw.choice(GROUPS[group]), draw.choice(OPTIONS).key
    text = draw.choice(
        [
            "+new=1",
            "++new=1",
            f"+{group}.new_option=1",
            f"++{group}.new_option=1",
            f"+{group}={option}",
            f"~{group}",
            f"~{group}={option}",
            f"~{key}",
            "~seed",
            f"{group}@x={option}",
            f"{group}@_global_={option}",
            f"{group}@:x={option}",
            f"+{group}@x={option}",
            f"{group}/{option}=1",
            "defaults=[]",
            "_self_=1",
            "runs=elsewhere",
            "runs=null",
            "runs.dir=''",
        ]
    )
    return Bad((text,), (text, text.partition("=")[0].lstrip("+")))


def of_hydra(draw: random.Random) -> Bad:
    text = draw.choice(
        [
            "hydra=null",
            "hydra=x",
            "hydra.ouput_subdir=x",
            "hydra.run.dir=/nowhere",
            "hydra.job.chdir=true",
            "hydra.mode=MULTIRUN",
            "hydra.sweeper.params=1",
            "+hydra.new=1",
            "++hydra.new=1",
            "~hydra",
            "hydra/launcher=nope",
            "hydra/launcher=basic",
            "hydra/job_logging=default",
            "hydra.searchpath=[file:///no/such/folder]",
            "hydra.searchpath=7",
        ]
    )
    return Bad((text,), (text, text.partition("=")[0].lstrip("+~")))


def many_values(draw: random.Random) -> Bad:
    group = draw.choice(list(GROUPS))
    key = draw.choice([*(option.key for option in OPTIONS), group, "seed"])
    text = (
        f"{key}={draw.choice(('a,b', '1,2', 'range(1,4)', 'choice(1,2)', 'glob(*)', 'interval(0,1)', 'shuffle(1,2)'))}"
    )
    return Bad((text,), (text,))


CONTRADICTIONS = [
    (("attack=solarize", "attack.mode=fixed"), "attack.mode"),
    (("attack=solarize", "attack.threshold=0.5"), "attack.mode"),
    (("attack=solarize", "threat.eps=8/255"), "threat.norm"),
    (("attack=none", "threat.eps=1"), "threat.norm"),
    (("threat=unbounded", "threat.eps=1"), "threat.norm"),
    (("threat.norm=unbounded",), "threat.norm"),
    (("threat.eps=null",), "threat.norm"),
    (("threat.eps=-1/255",), "threat.norm"),
    (("threat.eps=[]",), "threat.eps"),
    (("threat.eps=[0.1,0.2,0.1]",), "threat.eps"),
    (("threat.eps=[8/255,0.1,8/255]",), "threat.eps"),
    (("threat.eps=[0.1,-0.2]",), "threat.norm"),
    (("threat=unbounded", "threat.eps=[0.1,0.2]"), "threat.norm"),
    (("attack=solarize", "threat=linf_0.3", "threat.eps=[0.1,0.2]"), "threat.eps"),
    (("attack=solarize", "attack.mode=exhaustive", "threat.norm=l2", "threat.eps=[1,2]"), "threat.eps"),
    (("attack=pgd", "threat=unbounded"), "threat.norm"),
    (("attack=fgsm", "threat=unbounded"), "threat.norm"),
    (("attack=fgsm", "threat.norm=l1", "threat.eps=1"), "threat.norm"),
    (("attack=pgd", "threat.norm=l1"), "threat.norm"),
    (("attack=pgd", "attack.init=zero", "attack.n_restarts=3"), "attack.n_restarts"),
    (("attack=fgsm", "attack.steps=5"), "attack.steps"),
    (("attack=pgd", "attack.iterations=5"), "attack.iterations"),
    (("attack=none", "attack.loss=ce"), "attack.loss"),
    (("attack=fgsm", "attack.method=pgdd"), "attack.method"),
    (("model.source=bundeled",), "model.source"),
    (("model.name=mnist_cnnn",), "model.name"),
    (("model.weights=own.pt",), "model.weights"),
    (("model=timm",), "model.name"),
    (("model=torchvision",), "model.name"),
    (("model=python", "model.mean=[0.5]"), "model.mean"),
    (("model=python", "model.sd=[0.5]"), "model.sd"),
    (("model=python", "model.mean=[0.5, 0.5]", "model.sd=[0.5]"), "model.mean"),
    (("model=python", "model.mean=[0.5]", "model.sd=[0]"), "model.sd"),
    (("model=checkpoint", "model.mean=[]", "model.sd=[]"), "model.mean"),
    (("model=python", "model.input_size=[3,8,8]", "model.mean=[0.5,0.5]", "model.sd=[1,1]"), "model.mean"),
    (("dataset=mnist_5k", "dataset.root=here"), "dataset.root"),
    (("dataset=mnist_5k", "dataset.path=here.npz"), "dataset.path"),
    (("dataset=arrays", "dataset.root=here"), "dataset.root"),
    (("dataset=folder", "dataset.path=here"), "dataset.path"),
    (("dataset=mnist", "dataset.path=here"), "dataset.path"),
    (("dataset=imagenet_samples", "dataset.root=here"), "dataset.root"),
    (("dataset=imagenet", "dataset.path=here"), "dataset.path"),
    (("dataset=mnist_5k", "dataset.download=true"), "dataset.download"),
    (("dataset.name=mnst",), "dataset.name"),
    (("logger=wandb", "logger.required=true", "logger.mode=disabled"), "logger.required"),
    (("logger=wandb", "logger.project=a/b"), "logger.project"),
    (("logger=wandb", "logger.project=''"), "logger.project"),
    (("logger=wandb", "logger.tags=['']"), "logger.tags"),
    (("logger=none", "logger.mode=offline"), "logger.mode"),
    (("logger=none", "logger.name=wandbb"), "logger.name"),
    (("evidence=none", "evidence.limit=1GiB"), "evidence.limit"),
    (("evidence=auto", "evidence.limit=lots"), "evidence.limit"),
    (("evidence=auto", "evidence.limit=-1GiB"), "evidence.limit"),
    (("experiment=nope",), "experiment"),
    (("experiment=[a]",), "experiment"),
    (("experiment.option=1",), "an experiment has no options"),
    (("transform=[jpeg,jpeg]",), "jpeg is named twice"),
    (("runtime.device=tpu",), "runtime.device"),
    (("runtime.device=cuda:x",), "runtime.device"),
    (("runtime.workers=0",), "runtime.workers"),
    (("runtime.workers=257",), "runtime.workers=257 is too many"),
    (("seed=-1",), "seed"),
    (("seed=1.5",), "seed"),
    (("seed=abc",), "seed"),
    (("seed=null",), "seed"),
    (("seed=true",), "seed"),
    (("seed=[1]",), "seed"),
    ((f"seed={2**63}",), "seed"),
]


def contradiction(draw: random.Random) -> Bad:
    overrides, key = draw.choice(CONTRADICTIONS)
    return Bad(tuple(draw.sample(overrides, len(overrides))), (key,))


# How many of a hundred; those that compose the whole configuration take longest.
KINDS: dict[Callable[[random.Random], Bad], int] = {
    bad_value: 10,  # and one for each key
    bad_key: 10,
    bad_group: 7,
    bad_option: 8,
    no_name: 7,
    bad_grammar: 13,
    no_sign: 3,
    to_nothing: 5,
    not_ours: 8,
    of_hydra: 4,
    many_values: 7,
}


def generated(seed: int = 9) -> list[Bad]:
    """Return five hundred different wrong command lines: all contradictions, a value for each key, the others drawn."""
    draw = random.Random(seed)
    found = {Bad(overrides, (key,)) for overrides, key in CONTRADICTIONS}
    found |= {bad_value(draw, key) for key in sorted({option.key for option in OPTIONS})}
    cases = sorted(found, key=lambda bad: bad.overrides)
    while len(cases) < COUNT:
        bad = draw.choices(list(KINDS), weights=list(KINDS.values()))[0](draw)
        if bad not in found:
            found.add(bad)
            cases.append(bad)
    return cases


CASES = generated()


def fault(bad: Bad, code: int, out: str, err: str) -> str | None:
    """Return what is wrong with an answer, None where it is as it should be."""
    if code != 2:
        return f"exit code {code}"
    if out or not err.startswith("robusteval: ") or err.count("\n") != 1 or len(err) < 25:
        return "not one line on standard error alone"
    if not any(name in err for name in bad.names):
        return f"does not name {' or '.join(bad.names)}"
    if re.search(r"Traceback|\b[A-Z]\w*(Error|Exception)\b|<class|object at 0x|full_key", err):
        return "speaks of Python"
    return None


def test_the_generator_covers_every_group_and_every_key() -> None:
    said = [override.partition("=")[0].lstrip("+~") for bad in CASES for override in bad.overrides]
    assert {key.partition(".")[0] for key in said} >= {*GROUPS, "seed", "runs", "hydra"}
    assert len({option.key for option in OPTIONS}) > 50
    assert len(CASES) == len(set(CASES)) == COUNT
    assert {option.key for option in OPTIONS} <= set(said)


@pytest.mark.parametrize(
    "cases",
    [CASES[::12], pytest.param([one for i, one in enumerate(CASES) if i % 12], marks=pytest.mark.slow)],
    ids=["every twelfth", "others"],
)
def test_wrong_command_lines(cases: list[Bad], answer: Callable, evaluated: list[object]) -> None:
    faults = []
    for bad in cases:
        given = answer(*bad.overrides)
        if evaluated:
            evaluated.clear()
            faults.append(f"{bad.overrides} was taken for right")
        elif found := fault(bad, given.code, given.out, given.err):
            faults.append(f"{bad.overrides}: {found}: {given.err or given.out}")
    assert not faults, f"{len(faults)} of {len(cases)}\n" + "\n".join(faults)


def test_twenty_as_processes(process: Callable) -> None:
    draw = random.Random(1)
    fast = (bad_group, bad_option, no_name, bad_grammar, many_values)  # those that need not import torch
    cases = [kind(draw) for kind in (*KINDS, *(draw.choice(fast) for _ in range(PROCESSES - len(KINDS))))]
    assert len(cases) == PROCESSES
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda bad: process(*bad.overrides), cases))
    faults = [
        f"{bad.overrides}: {found}: {given.err}"
        for bad, given in zip(cases, answers, strict=True)
        if (found := fault(bad, given.code, given.out, given.err))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("value", ["8/255", "'8/255'", "8 / 255", "0.03137254901960784", "8e0/255.0"])
def test_the_same_harness_takes_what_is_right(answer: Callable, evaluated: list[Any], value: str) -> None:
    assert answer("attack=pgd", f"threat.eps={value}", "logger=none").code == 0
    assert evaluated[0].threat.eps == 8 / 255

"""The command line: evaluations by overrides, plain subcommands for the rest, and exit codes.

0 done; 1 failed; 2 wrong input, one sentence and nothing lost; 75 interrupted, the same command goes on.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from robusteval.errors import Interrupted, RobustevalError, UserError, did_you_mean, told
from robusteval.help import HELP

COMMANDS = {
    "compare": "robusteval.report.compare:main",
    "leaderboard": "robusteval.leaderboard.command:main",
    "list": "robusteval.listing:main",
    "merge": "robusteval.merge.command:main",
    "push": "robusteval.sinks.push:main",
    "report": "robusteval.report.page.command:main",
    "selftest": "robusteval.selftest:main",
    "status": "robusteval.report.status:main",
    "summary": "robusteval.report.summary:main",
    "train": "robusteval.train:main",
    "tune": "robusteval.tune:main",
    "verify": "robusteval.evidence.verify:main",
}
# Hydra's own flags that only show the configuration; it answers them itself.
_HYDRA = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc", "--resolve", "--package", "-p")


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return the exit code; nothing is raised but what a bug raises."""
    try:
        code = _dispatch(list(arguments))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RobustevalError, OSError, MemoryError) as error:
        if os.environ.get("ROBUSTEVAL_DEBUG"):
            raise
        sentence, code = told(error)
        print(f"robusteval: {sentence}", file=sys.stderr)
        return code
    except SystemExit as left:  # argparse has answered
        return left.code if isinstance(left.code, int) else 0
    except Interrupted as interrupted:
        print(f"robusteval: interrupted ({interrupted}); run the same command to go on", file=sys.stderr)
        return interrupted.exit_code
    except KeyboardInterrupt:
        print("robusteval: interrupted; run the same command to go on", file=sys.stderr)
        return Interrupted.exit_code


def _dispatch(arguments: list[str]) -> int:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UserError(f"{argument!a} is not UTF-8 text; rename the file that it names") from None
    if any(flag in arguments for flag in ("--help", "-h")) and arguments[0] not in COMMANDS:
        print(HELP)
        return 0
    if "--version" in arguments:
        from robusteval import __version__

        print(f"robusteval {__version__}")
        return 0
    if arguments and arguments[0] in COMMANDS:
        module, _, attribute = COMMANDS[arguments[0]].partition(":")
        return getattr(importlib.import_module(module), attribute)(arguments[1:])
    if arguments and "=" not in arguments[0] and not arguments[0].startswith(("-", "~")):
        raise UserError(
            f"'{arguments[0]}' is not a command{did_you_mean(arguments[0], COMMANDS)} (commands: {', '.join(COMMANDS)})"
        )
    if any(argument.partition("=")[0] in _HYDRA for argument in arguments):
        from robusteval.sweep import show

        return show(arguments)
    return _evaluate(arguments)


def _evaluate(arguments: list[str]) -> int:
    from robusteval import experiments, registry, sharding
    from robusteval.compose import composed

    multirun = any(flag in arguments for flag in ("-m", "--multirun"))
    config_dir, overrides = _split(arguments)
    study = None
    if (experiment := experiments.asked(overrides, config_dir)) is not None:
        multirun, overrides, study = True, experiment.overrides, experiment.study
    spread = sharding.spread(overrides)
    if multirun or spread is not None:
        from robusteval.sweep import multirun as run_sweep

        then = None if study is None else registry.lookup(registry.STUDIES, "study", study)
        return run_sweep(overrides if spread is None else spread, config_dir, then)
    mapping = composed(overrides, config_dir)
    if (asked := sharding.of_files(mapping)) is not None:
        from robusteval.sweep import multirun as run_sweep

        return run_sweep([*overrides, asked], config_dir)
    for override in overrides:
        if override.lstrip("+").startswith(("hydra.", "hydra/")) and "hydra.searchpath" not in override:
            raise UserError(f"{override}: Hydra's own options act on sweeps; add -m, or leave it out")
    from robusteval.config import build  # only now: it imports torch, and what was misspelt has been told

    config = build(mapping)
    if not (Path(config.runs.dir) / config.folder_name).exists():  # one that exists may be complete, or told of there
        from robusteval.missing import refuse_missing

        refuse_missing(config)
    from robusteval.engine.runner import evaluate

    print(evaluate(config, command=overrides))
    return 0


def _split(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Separate ``--config-dir`` and the multirun flag from the overrides."""
    config_dir: str | None = None
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in ("-m", "--multirun"):
            continue
        if argument in ("--config-dir", "-cd"):
            config_dir = next(rest, None)
            if config_dir is None:
                raise UserError("--config-dir needs a folder")
        elif argument.startswith("--config-dir="):
            config_dir = argument.partition("=")[2]
        elif argument.startswith("-"):
            raise UserError(
                f"{argument} is not a flag of robusteval; options are written KEY=VALUE, see robusteval --help"
            )
        else:
            overrides.append(argument)
    return config_dir, overrides

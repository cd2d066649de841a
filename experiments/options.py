"""The command line of an experiment: what tyro makes of a dataclass, and how a program ends, in one line."""

import contextlib
import dataclasses
import io
import itertools
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro

from experiments.data import UserError

C = TypeVar("C")


def parse(default: C, script: str, arguments: Sequence[str] | None) -> C:
    """`default` with the changes that the command line asks for; its class's docstrings are the help.

    Raises:
        UserError: what tyro says in a box, less the title and all but the first paragraph.
    """
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return tyro.cli(type(default), default=default, prog=f"python -m {script}", args=arguments)
    except SystemExit as stop:
        if not stop.code:
            raise
        lines = [line.strip("│ ") for line in message.getvalue().splitlines()[1:]]
        groups = itertools.groupby(lines, lambda line: bool(line.strip("─-")))
        raise UserError(" ".join(next(lines for is_text, lines in groups if is_text))) from None


@contextlib.contextmanager
def ending(interrupted: str) -> Iterator[None]:
    """Exits with 2 and one line on a user's error, with 130 and the line `interrupted` on Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def command(config: Any, default: Any, script: str, places: Sequence[str]) -> str:
    """The shortest command line that gives a configuration, wherever its files are.

    `script` is the module with its positional arguments; `places` are fields that are not told.
    """
    words = ["python", "-m", *script.split()]
    for field in dataclasses.fields(config):
        name, value = field.name.replace("_", "-"), getattr(config, field.name)
        if value == getattr(default, field.name) or field.name in places:
            continue
        if field.type is bool:
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", str(value)]
    return shlex.join(words)

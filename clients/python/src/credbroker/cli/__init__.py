"""The ``credbroker`` command: credentials for shells and for programs that know nothing of the broker."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence

from credbroker._errors import Error
from credbroker.cli import _commands
from credbroker.cli._arguments import parse
from credbroker.cli._variables import Unusable

_COMMANDS = {"issue": _commands.issue, "exec": _commands.execute, "complete": _commands.complete}

# What env(1), timeout(1) and their like answer when they fail themselves, to be
# told from the exit codes of the command that they run.
_FAILED = {"exec": 125}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = parse(list(sys.argv[1:] if argv is None else argv))
    with _log_to_stderr(logging.INFO if arguments.verbose else logging.WARNING):
        try:
            return _COMMANDS[arguments.command](arguments)
        except (Error, Unusable) as error:
            _say(str(error))
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            # What is left in the buffer would fail once more when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            _say("the reader of the output has gone away")
    return _FAILED.get(arguments.command, 1)


def _say(text: str) -> None:
    sys.stderr.write(f"credbroker: {text}\n")


@contextlib.contextmanager
def _log_to_stderr(level: int) -> Iterator[None]:
    logger = logging.getLogger("credbroker")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("credbroker: %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)

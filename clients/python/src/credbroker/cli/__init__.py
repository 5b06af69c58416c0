"""The ``credbroker`` command: credentials for shells and for programs that know nothing of the broker."""

import logging
import sys
from collections.abc import Sequence

from credbroker._errors import Error
from credbroker.cli import _commands
from credbroker.cli._arguments import parse
from credbroker.cli._variables import Unusable


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = parse(list(sys.argv[1:] if argv is None else argv))
    _log_to_stderr(logging.INFO if arguments.verbose else logging.WARNING)
    try:
        return _COMMANDS[arguments.command](arguments)
    except (Error, Unusable) as error:
        _say(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _say("the reader of the output has gone away")
    return _FAILED.get(arguments.command, 1)


_COMMANDS = {"issue": _commands.issue, "exec": _commands.execute, "complete": _commands.complete}

# What env(1), timeout(1) and their like answer when they fail themselves, to be
# told from the exit codes of the command that they run.
_FAILED = {"exec": 125}


def _say(text: str) -> None:
    sys.stderr.write(f"credbroker: {text}\n")


def _log_to_stderr(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("credbroker: %(message)s"))
    logger = logging.getLogger("credbroker")
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False

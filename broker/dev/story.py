"""A story told on a terminal: numbered steps, each of which holds or fails."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from broker.errors import BrokerError
from broker.terminal import printable, printable_lines


class Unexpected(Exception):
    """Something was not as the story says; the text says what."""


class StepFailed(Exception):
    """A step failed and was told; its name is the text."""


class Story:
    """Tells steps as they happen.

    Args:
        console: Where.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(markup=False, emoji=False, highlight=False)
        self._steps = 0

    @contextmanager
    def step(self, title: str, *, numbered: bool = True) -> Iterator[None]:
        """Tell what is about to be done, and, should it fail, why.

        Raises:
            StepFailed: when the step raised anything; that was told.
        """
        self._steps += numbered
        number = f"{self._steps}. " if numbered else ""
        self.console.print(Text(f"\n{number}{printable(title)}", "bold"), soft_wrap=True)
        try:
            yield
        except Exception as error:
            self._tell_failure(error)
            raise StepFailed(title) from error

    def holds(self, text: str) -> None:
        """Tell something that was checked and is as it should be."""
        self.console.print(Text("   ✓ ", "green"), Text(printable(text), "default"), sep="", soft_wrap=True)

    def say(self, text: str) -> None:
        """Tell something in passing."""
        for line in printable_lines(text):
            self.console.print(Text(f"   {line}", "dim"), soft_wrap=True)

    def quote(self, command: str, output: str) -> None:
        """Show a command and what it printed, which is safe to show already."""
        self.console.print(Text(f"   $ {command}\n", "cyan"), soft_wrap=True)
        for line in output.rstrip("\n").split("\n"):
            self.console.out(f"   {line}", highlight=False)

    def _tell_failure(self, error: Exception) -> None:
        text = error.detail if isinstance(error, BrokerError) else str(error)
        if not isinstance(error, BrokerError | Unexpected):
            text = f"{type(error).__name__}: {text}"
        first, *others = printable_lines(text)
        self.console.print(Text(f"   ✗ {first}", "bold red"), soft_wrap=True)
        for line in others:
            self.console.print(Text(f"     {line}", "red"), soft_wrap=True)


def expect(condition: bool, otherwise: str) -> None:
    """Check something that the story depends on.

    Raises:
        Unexpected: when it does not hold.
    """
    if not condition:
        raise Unexpected(otherwise)


class Stopwatch:
    """Tells how long something took."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __str__(self) -> str:
        return f"{time.monotonic() - self._start:.1f} s"

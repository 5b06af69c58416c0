"""Who is told of every request: what metrics and traces are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from broker.audit import Call
from broker.serve.evidence import Metadata


@dataclass(frozen=True, slots=True)
class Ended:
    """How a request ended.

    Attributes:
        code: Name of the gRPC code; ``CANCELLED`` when the caller went away.
        reason: Of the error tree; empty unless it was refused.
        seconds: How long it took.
    """

    code: str
    reason: str
    seconds: float


Observer: TypeAlias = Callable[[Call, Metadata], Callable[[Ended], None]]
"""Called as a request begins, in its own asyncio task, with what it brought;
what it returns is called as the request ends."""

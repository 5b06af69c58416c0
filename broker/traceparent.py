"""The span that the work at hand belongs to, for those to whom the work is passed on."""

from contextvars import ContextVar
from typing import Final

traceparent: Final[ContextVar[str]] = ContextVar("credbroker_traceparent", default="")
"""The value of the header of that name (W3C Trace Context); empty when nothing is traced."""

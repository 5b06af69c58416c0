"""What the server's process does without."""

import sys


def load_without_rich() -> None:
    """Load structlog before anybody else does, without rich.

    It takes rich for tracebacks, which the broker's log never shows, if there
    is one: 6 MB in every worker.
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # what the import system takes for "not installed"
    try:
        import structlog as _  # noqa: F401 - loading it is all
    finally:
        del sys.modules["rich"]

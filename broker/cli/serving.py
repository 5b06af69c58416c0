"""Running the server in the foreground until it is asked to end."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from broker.app import App
from broker.cli.failures import Failure
from broker.config import Settings
from broker.replica import replica_name
from broker.serve import logs

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
NEW_OBJECTS: Final = 5_000
"""After so many more objects, the newest are looked through for cycles."""


def run(settings: Settings, lifeline: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way.

    A second signal ends the process at once.

    Args:
        settings: The configuration.
        lifeline: For a worker: the reading end of a pipe that nobody writes
            to. Its end of file says that the supervisor is gone, and ends the
            worker as a signal does. Signals that follow are left to the
            supervisor, who kills what takes too long.

    Raises:
        ConfigError: when something the configuration points to is wrong.
        StoreUnavailable: when the database is away or not upgraded.
        Failure: when something failed that never should; the log says what.
    """
    _let_threads_finish()
    name = replica_name()
    logs.configure(settings.log.level, settings.log.format, name)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings, name, lifeline))


def _let_threads_finish() -> None:
    """Ask the kernel not to interrupt one thread whenever another of this process has something to do.

    The event loop hands work to threads that run for a moment and wait for it
    again: it is worth more to let it go on. Source: sched(7), SCHED_BATCH.
    """
    if sys.platform == "linux":
        # Where a sandbox forbids it, it is only slower.
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


async def _serve(settings: Settings, name: str, lifeline: int | None) -> None:
    log = structlog.get_logger(__name__)
    asked_to_end = _on_signal() if lifeline is None else _on_any_word(lifeline)
    app = await App.start(settings, name=name, share_ports=lifeline is not None)
    try:
        # What is there by now stays: looking through it for cycles again takes up to 90 ms at a time.
        gc.collect()
        gc.freeze()
        # A request under way holds hundreds of objects and leaves few cycles: after 700 new ones, as is the default,
        # looking for cycles cost 23 µs a credential at 32 callers; now it is 4 µs, 1 ms at a time.
        gc.set_threshold(NEW_OBJECTS)
        log.info("started", **app.addresses)
        await _first(asked_to_end.wait(), app.wait())
        log.info("ending: requests under way are finished")
    except Exception as error:
        log.error("background work failed", exc_info=error)
        raise Failure("the broker cannot go on", advice="its log says why") from None
    finally:
        await app.stop()
    log.info("ended")


def _on_signal() -> asyncio.Event:
    """Return an event that the first signal sets; a second one acts as if nobody listened."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()

    def end() -> None:
        event.set()
        for number in SIGNALS:
            loop.remove_signal_handler(number)

    for number in SIGNALS:
        loop.add_signal_handler(number, end)
    return event


def _on_any_word(lifeline: int) -> asyncio.Event:
    """Return an event that signals set, and the end of the supervisor."""
    event, loop = asyncio.Event(), asyncio.get_running_loop()

    def end() -> None:
        event.set()
        loop.remove_reader(lifeline)

    loop.add_reader(lifeline, end)
    for number in SIGNALS:
        loop.add_signal_handler(number, event.set)
    return event


async def _first(*waiting: Awaitable[object]) -> None:
    """Wait until one is done, and raise what it failed with."""
    tasks = [asyncio.ensure_future(item) for item in waiting]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()

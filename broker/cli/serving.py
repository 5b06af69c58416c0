"""Running the server in the foreground until it is asked to end."""

import asyncio
import signal
import sys
from collections.abc import Callable

import structlog

from broker.app import App
from broker.config import Settings

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is under way.

    A second signal ends the process at once.

    Raises:
        ConfigError: when something the configuration points to is wrong.
        Unavailable: when something the server needs at its start is away.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(settings))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


async def _serve(settings: Settings) -> None:
    asked_to_end = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        asked_to_end.set()
        for number in SIGNALS:
            loop.remove_signal_handler(number)

    for number in SIGNALS:
        loop.add_signal_handler(number, end)
    log = structlog.get_logger("broker.serve")
    app = await App.start(settings)
    try:
        log.info("listening", **app.addresses)
        ended, asked = asyncio.ensure_future(app.wait()), asyncio.ensure_future(asked_to_end.wait())
        await asyncio.wait((ended, asked), return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, asked):
            task.cancel()
    finally:
        log.info("draining")
        await app.stop()
        log.info("ended")

"""Work that is finished though nobody waits for it any more."""

import asyncio
import contextlib


async def see_through(task: asyncio.Task[object]) -> None:
    """Wait until a task has ended, whatever it ends in, and however often this wait is cancelled.

    For a caller that was cancelled itself, and raises that again afterwards:
    whatever counted it as being under way goes on counting it until its work
    is done, so that coming and going in a loop piles nothing up.
    """
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])

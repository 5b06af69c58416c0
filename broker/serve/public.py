"""Calls that need no identity: health, and reflection where it is enabled.

They have room of their own, so that a flood of them takes none from requests,
and requests take none from health checks. Nothing of them is recorded.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, cast

import grpc
import structlog
from google.protobuf.message import Message

from broker.clock import Clock
from broker.errors import BrokerError, Unavailable
from broker.serve.errors import status_of
from broker.serve.gate import Gate
from broker.serve.reading import Context, Handler, read_message

MAX_PUBLIC_CALLS: Final = 64
"""Most calls with a single reply at once, and as many with a stream of them."""

Single: TypeAlias = Callable[[Message, Context], Awaitable[Message]]
Writing: TypeAlias = Callable[[Message, Context], Awaitable[None]]
Conversing: TypeAlias = Callable[[object, Context], AsyncIterator[Message]]

log = structlog.get_logger(__name__)


class PublicCalls:
    """Serves the calls that need no identity."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._singles = Gate(MAX_PUBLIC_CALLS)
        self._streams = Gate(MAX_PUBLIC_CALLS)
        self._open: set[asyncio.Timeout] = set()

    def wrap(self, handler: Handler) -> Handler:
        """Return the handler, bounded in number and in the wait for its message."""
        if handler.unary_unary is not None:
            return grpc.stream_unary_rpc_method_handler(self._single(handler), None, handler.response_serializer)
        if handler.unary_stream is not None:
            return grpc.stream_stream_rpc_method_handler(self._writing(handler), None, handler.response_serializer)
        return grpc.stream_stream_rpc_method_handler(
            self._conversing(handler), handler.request_deserializer, handler.response_serializer
        )

    def end_streams(self) -> None:
        """End the streams, which would never end by themselves."""
        for stream in self._open:
            stream.reschedule(0)

    @asynccontextmanager
    async def _stream(self, context: Context) -> AsyncIterator[None]:
        async with _answering(self._streams, context):
            try:
                async with asyncio.timeout(None) as stream:
                    self._open.add(stream)
                    try:
                        yield
                    finally:
                        self._open.discard(stream)
            except TimeoutError:
                raise Unavailable(message="the broker is shutting down; try again shortly") from None

    def _single(self, handler: Handler) -> Callable[[object, Context], Awaitable[Message]]:
        servicer = cast("Single", handler.unary_unary)
        parse = cast("Callable[[bytes], Message]", handler.request_deserializer)

        async def serve(_requests: object, context: Context) -> Message:
            async with _answering(self._singles, context):
                return await servicer(await read_message(context, parse, self._clock), context)

        return serve

    def _writing(self, handler: Handler) -> Callable[[object, Context], Awaitable[None]]:
        servicer = cast("Writing", handler.unary_stream)
        parse = cast("Callable[[bytes], Message]", handler.request_deserializer)

        async def serve(_requests: object, context: Context) -> None:
            async with self._stream(context):
                await servicer(await read_message(context, parse, self._clock), context)

        return serve

    def _conversing(self, handler: Handler) -> Conversing:
        servicer = cast("Conversing", handler.stream_stream)

        async def serve(requests: object, context: Context) -> AsyncIterator[Message]:
            async with self._stream(context):
                async for reply in servicer(requests, context):
                    yield reply

        return serve


@asynccontextmanager
async def _answering(gate: Gate, context: Context) -> AsyncIterator[None]:
    try:
        with gate:
            yield
    except grpc.aio.AbortError:
        raise
    except BrokerError as error:
        await context.abort_with_status(status_of(error))
    except Exception as error:
        log.error("a public call failed unexpectedly", exc_info=error)
        await context.abort_with_status(status_of(BrokerError()))

"""The one way into the broker: every request passes here, and every refusal leaves here.

In this order: is there room for the request; is the time certain, by which
evidence is judged; which evidence does it carry; whose is it; may that role
make this call; does that identity not wait for too much already. Only then is
the request's message read, and when its turn comes the servicer is run.
Whatever goes wrong on this way becomes one gRPC status for the caller, one
event for the auditors and one log line.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias, cast
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf.message import Message

from broker import deadline
from broker.attest.evidence import Evidence
from broker.audit import Call
from broker.clock import Clock
from broker.errors import BrokerError, Overloaded, RoleRequired
from broker.model import Caller, Role
from broker.serve.access import IN_DOUBT_TOO, PUBLIC, AccessTable
from broker.serve.context import serve_from_now_on
from broker.serve.errors import code_of, status_of
from broker.serve.evidence import Metadata, find_evidence
from broker.serve.fairness import FairQueue, Place
from broker.serve.gate import Gate
from broker.serve.lanes import Lanes
from broker.serve.logs import log_request
from broker.serve.observing import Ended, Observer
from broker.serve.public import PublicCalls
from broker.serve.reading import Context, Handler, read_message
from broker.serve.refusals import Refusals

Identifier: TypeAlias = Callable[[Evidence | None, datetime], Awaitable[Caller]]
Answer: TypeAlias = bytes | BrokerError
Servicer: TypeAlias = Callable[[Message, Context], Awaitable[Message]]

_OVERLOAD_LOG_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Rpc:
    """One RPC and what stands before it."""

    method: str
    roles: frozenset[Role]
    queue: FairQueue
    in_doubt_too: bool
    parse: Callable[[bytes], Message]
    serve: Servicer


class Interceptor(grpc.aio.ServerInterceptor):
    """Stands before every servicer.

    Requests that are turned away for lack of room leave no event: nothing was
    decided about anybody, and writing them down would make the load worse. The
    log says, at most once a second, how many there were.

    Args:
        table: Who may call what.
        identify: Establishes the caller from evidence.
        refusals: Records what is refused.
        gate: Bounds the requests that are let in at once.
        lanes: Where requests wait for their turn once it is known whose they are.
        public: Serves the calls that need no identity.
        clock: Gives every request its one moment.
        check_clock: Raises a `BrokerError` while that cannot be trusted.
        longest: Deadline of a request that has none, or a later one.
        observers: Are told of every request.
    """

    def __init__(
        self,
        table: AccessTable,
        identify: Identifier,
        refusals: Refusals,
        gate: Gate,
        lanes: Lanes,
        public: PublicCalls,
        clock: Clock,
        check_clock: Callable[[], None],
        longest: timedelta,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._table = table
        self._identify = identify
        self._refusals = refusals
        self._gate = gate
        self._lanes = lanes
        self._public = public
        self._clock = clock
        self._longest = longest
        self._check_clock = check_clock
        self._observers = observers
        self._handlers: dict[str, Handler] = {}
        self._turned_away = 0
        self._turned_away_logged = float("-inf")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the guarded handler of a method; None for one that is not served."""
        method = handler_call_details.method.removeprefix("/")
        guarded = self._handlers.get(method)
        if guarded is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            guarded = self._handlers[method] = self._guard(method, handler)
        return guarded

    def _guard(self, method: str, handler: Handler) -> Handler:
        rule = self._table[method]
        if rule is PUBLIC:
            return self._public.wrap(handler)
        if handler.unary_unary is None or handler.request_deserializer is None:
            raise RuntimeError(f"{method} is not a unary call")
        rpc = _Rpc(
            method=method,
            roles=rule,
            queue=self._lanes.of(method),
            in_doubt_too=method in IN_DOUBT_TOO,
            parse=handler.request_deserializer,
            serve=cast("Servicer", handler.unary_unary),
        )

        async def serve(_requests: object, context: Context) -> bytes:
            try:
                with self._gate, deadline.within(self._time_of(context)):
                    answer = await self._answer(rpc, context)
                    if isinstance(answer, bytes):
                        return answer
                    await context.abort_with_status(status_of(answer))
            except Overloaded as error:
                self._note_overload()
                self._observe(self._call(method, context), context.invocation_metadata() or ())(_ended(error, 0.0))
                await context.abort_with_status(status_of(error))

        return grpc.stream_unary_rpc_method_handler(serve)

    async def _answer(self, rpc: _Rpc, context: Context) -> Answer:
        """Return the reply, or why there is none. Raises nothing but cancellation."""
        started = self._clock.monotonic()
        call = self._call(rpc.method, context)
        metadata = context.invocation_metadata() or ()
        tell = self._observe(call, metadata)
        answer: Answer | None = None
        noted = True
        try:
            await self._admit(rpc, call, metadata, context)
            with rpc.queue.admit(call.uri) as place:
                answer = await self._perform(rpc, call, context, place)
        except Overloaded as error:
            self._note_overload()
            answer, noted = error, False
        except Exception as error:
            refused = _translate(error, rpc.method)
            noted = await self._refusals.write(call.refusal(refused))
            answer = refused
        finally:
            ended = _ended(answer, self._clock.monotonic() - started)
            if noted:
                _log_end(call, ended)
            tell(ended)
        return answer

    def _call(self, method: str, context: Context) -> Call:
        return Call(method=method, peer=_address(context.peer()), now=self._clock.now())

    def _observe(self, call: Call, metadata: Metadata) -> Callable[[Ended], None]:
        """Tell the observers that a request begins; return what tells them that it ended."""
        telling = [observer(call, metadata) for observer in self._observers]

        def tell(ended: Ended) -> None:
            for one in reversed(telling):
                one(ended)

        return tell

    async def _perform(self, rpc: _Rpc, call: Call, context: Context, place: Place) -> bytes:
        request = await read_message(context, rpc.parse, self._clock)
        await place.wait_for_turn()
        serve_from_now_on(call)
        reply = await rpc.serve(request, context)
        return reply.SerializeToString()

    async def _admit(self, rpc: _Rpc, call: Call, metadata: Metadata, context: Context) -> None:
        """Establish who calls, and that they may.

        Raises:
            ClockUncertain: when evidence cannot be judged and the call is one that gives.
            Unauthenticated: when no identity can be established.
            RoleRequired: when the identity has none of the roles.
        """
        if not rpc.in_doubt_too:
            self._check_clock()
        evidence = find_evidence(metadata, context.auth_context())
        caller = call.caller = await self._identify(evidence, call.now)
        if rpc.roles.isdisjoint(caller.roles):
            raise RoleRequired(
                f"needs {' or '.join(sorted(rpc.roles))}; the identity is {', '.join(sorted(caller.roles))}"
            )

    def _time_of(self, context: Context) -> timedelta:
        """Return how long a request may take from now on."""
        left = context.time_remaining()
        return self._longest if left is None else min(self._longest, timedelta(seconds=left))

    def _note_overload(self) -> None:
        self._turned_away += 1
        now = self._clock.monotonic()
        if now - self._turned_away_logged >= _OVERLOAD_LOG_SECONDS:
            log.warning("requests turned away, there is no room", count=self._turned_away)
            self._turned_away, self._turned_away_logged = 0, now


def _translate(error: Exception, method: str) -> BrokerError:
    if isinstance(error, BrokerError):
        return error
    log.error("a request failed unexpectedly", method=method, exc_info=error)
    return BrokerError(f"unexpected {type(error).__name__}; the log has the place")


def _ended(answer: Answer | None, seconds: float) -> Ended:
    match answer:
        case BrokerError():
            return Ended(code_of(answer).name, answer.reason, seconds)
        case None:
            return Ended("CANCELLED", "", seconds)
        case _:
            return Ended("OK", "", seconds)


def _log_end(call: Call, ended: Ended) -> None:
    log_request(
        method=call.method,
        code=ended.code,
        reason=ended.reason,
        duration_ms=round(ended.seconds * 1000, 3),
        agent=call.caller.identity.uri if call.caller else "",
        peer=call.peer,
    )


def _address(peer: str) -> str:
    """Return the network address out of gRPC's ``ipv4:host:port`` or ``ipv6:%5Bhost%5D:port``."""
    address = peer.partition(":")[2]
    return unquote(address) if "%" in address else address

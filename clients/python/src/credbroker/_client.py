"""The blocking client."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import NoReturn, Self

from credbroker._blocking import BlockingIo, run
from credbroker._broker import Broker
from credbroker._clock import Clock, SystemClock
from credbroker._evidence import TokenCallable
from credbroker._holding import Holding
from credbroker._io import COMPLETE_TASK
from credbroker._requests import make_ask, make_spec
from credbroker._settings import AnyPath, Arguments, resolve
from credbroker._task import TaskCore
from credbroker._views import CredentialView, TaskView
from credbroker.v1 import task_service_pb2


class Credential(CredentialView):
    """One issued credential.

    Its values never change: ``username`` and ``password`` always belong
    together. Read them with ``credential["username"]``, or pass all of them on
    with ``connect(**credential)``; a Vault token is ``credential.token``. A
    credential that has ended gives nothing away: reading it raises
    `CredentialEnded`.

    To have one at hand for longer than it lives, call `fresh` before each use::

        connect(**credential.fresh())

    It is deliberately no `collections.abc.Mapping`, so that error reporters and
    loggers that unfold mappings do not unfold secrets. ``repr()`` shows no
    values, and pickling is refused.
    """

    __slots__ = ()

    def fresh(self) -> "Credential":
        """Return a credential with life left: this one, or the one that took its place.

        Costs nothing as long as more than a third of its life is left.
        Thereafter it is renewed where that is possible, and otherwise a new one
        is issued under the same task, scope and parameters. May be called from
        many threads: one replaces, the others go on with what there is.

        While a credential at hand is alive, it bridges a broker that is away; a
        refusal is raised at once.

        Raises:
            TaskEnded: when the task is over.
            CredentialEnded: when it was revoked here.
            Error: when none is to be had.
        """
        issued = run(self._holding.fresh())
        return self if issued is self._issued else Credential(self._holding, issued)

    def renew(self, ttl: timedelta | None = None) -> None:
        """Prolong it now. Its values stay the same; `expires_at` moves.

        Args:
            ttl: How long it should live from now on; the scope's default by
                default. Never reaches past `max_expires_at`.

        Raises:
            NotRenewable: when this kind cannot be prolonged.
            CredentialEnded: when it has ended.
            Error: when it cannot be prolonged for another reason.
        """
        run(self._holding.renew(self._issued, ttl))

    def revoke(self) -> None:
        """Take it back before its time. Revoking twice is harmless.

        Raises:
            NotRevocable: when it dies only with its task, or at its expiry
                (see `revocability`).
            Error: when there was no answer.
        """
        run(self._holding.revoke(self._issued))


class Task(TaskView):
    """One unit of an agent's work, which owns every credential issued for it.

    Used in a ``with`` statement it is completed when the block is left, however
    that happens, and the broker revokes everything issued for it.

    It starts by itself: with the first credential, in the same call, or on
    entering the block when it declares scopes. A task that never asked for
    anything is never known to the broker.
    """

    def start(self) -> Self:
        """Start the task now; harmless when it has started.

        Raises:
            ScopeDenied: when a declared scope would not be granted.
            Error: when it cannot be started for another reason.
        """
        run(self._core.start())
        return self

    def credential(
        self,
        scope: str,
        parameters: Mapping[str, object] | None = None,
        /,
        *,
        ttl: timedelta | None = None,
        **named: object,
    ) -> Credential:
        """Get a credential.

        Args:
            scope: Name of the scope.
            parameters: Parameters of the scope, by name. Any name is possible
                here.
            ttl: How long it should live; the scope's default by default, and
                never past the task's deadline. A `datetime.timedelta`, which
                no scope parameter can be, so that the two are never mixed up:
                a scope's own ``ttl`` parameter goes into the mapping.
            **named: Further parameters of the scope.

        Raises:
            ScopeDenied: when it is not granted.
            ParametersInvalid: when the parameters do not satisfy the scope.
            TaskEnded: when the task is over.
            Error: when it is not to be had for another reason.
        """
        ask = make_ask(scope, parameters, ttl, named)
        issued = run(self._core.issue(ask))
        return Credential(Holding(self._core, ask, issued), issued)

    def complete(self) -> None:
        """End the task and revoke everything issued for it. Harmless when it has ended.

        Raises:
            Error: when the broker did not confirm. It can be called again; the
                task ends at its deadline in any case.
        """
        run(self._core.complete())

    def __enter__(self) -> Self:
        return self.start() if self._eager else self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.complete()
        except Exception as failure:
            if error is None:
                raise
            self._failed_to_complete(failure, error)


class Client:
    """A connection to the broker. Safe to share between threads; make one and keep it.

    Everything left out is taken from the environment, variable names in
    parentheses. Exactly one kind of evidence is needed.

    Args:
        address: The broker's ``host:port`` (CREDBROKER_ADDRESS).
        token: Bearer token, or a callable that is asked for one before every
            attempt, as one-time tokens need (CREDBROKER_TOKEN).
        token_file: A file with the token, read before every attempt
            (CREDBROKER_TOKEN_FILE).
        certificate_file: PEM certificate chain for mutual TLS, for instance an
            X.509-SVID; read again when it changes (CREDBROKER_CERT_FILE).
        key_file: Its private key (CREDBROKER_KEY_FILE).
        ca_file: PEM certificates by which the broker is trusted; gRPC's list of
            public authorities by default (CREDBROKER_CA_FILE).
        timeout: Seconds that one attempt at a call may take.
        total_timeout: Seconds that an operation may take with all its attempts.
        clock: Where time comes from, for tests.

    Raises:
        Misconfigured: when something is missing, contradictory or malformed.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        token: str | TokenCallable | None = None,
        token_file: AnyPath | None = None,
        certificate_file: AnyPath | None = None,
        key_file: AnyPath | None = None,
        ca_file: AnyPath | None = None,
        timeout: float | timedelta = 10.0,
        total_timeout: float | timedelta = 30.0,
        clock: Clock | None = None,
    ) -> None:
        given = Arguments(address, token, token_file, certificate_file, key_file, ca_file, timeout, total_timeout)
        settings = resolve(given)
        self._address = settings.address
        self._io = BlockingIo(settings, clock or SystemClock())
        self._broker = Broker(self._io, settings.policy)

    def task(
        self,
        purpose: str,
        *,
        labels: Mapping[str, str] | None = None,
        scopes: Iterable[str] = (),
        timeout: float | timedelta | None = None,
        heartbeat_interval: float | timedelta | None = None,
        start: bool | None = None,
    ) -> Task:
        """Describe a task; use it in a ``with`` statement.

        Args:
            purpose: Why the work is done, 1 to 500 characters. Auditors read it.
            labels: Facts that scopes may ask for.
            scopes: Scopes that the task will need. They are checked when it
                starts, and no others can be had for it afterwards.
            timeout: Seconds after which the task ends by itself; the broker's
                default is one hour.
            heartbeat_interval: Seconds, at least one. The broker then ends the
                task soon after this process dies; heartbeats are sent in the
                background.
            start: Whether entering the ``with`` block starts the task; by
                default only when scopes are declared. Otherwise the first
                credential starts it, without a call of its own.
        """
        spec = make_spec(purpose, labels, scopes, timeout, heartbeat_interval)
        core = TaskCore(self._broker, spec)
        return Task(core, eager=bool(spec.declared_scopes) if start is None else start)

    def complete(self, task_id: str) -> None:
        """End a task that was started elsewhere, by its identifier.

        Raises:
            TaskNotFound: when you have no such task.
            Error: when the broker did not confirm.
        """
        request = task_service_pb2.CompleteTaskRequest(id=task_id)
        run(self._broker.invoke(COMPLETE_TASK, request, self._broker.attempts()))

    def close(self) -> None:
        """Close the connection and stop heartbeats. Tasks are not completed by this."""
        self._io.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._address}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client cannot be pickled or copied")

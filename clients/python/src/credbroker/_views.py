"""What the blocking and the asynchronous classes have in common: everything that needs no call."""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NoReturn

from credbroker._errors import Error
from credbroker._holding import Holding
from credbroker._issued import Issued, Revocability
from credbroker._task import TaskCore
from credbroker._wire import JsonValue

_log = logging.getLogger("credbroker")


class CredentialView:
    """One issued credential: its values, and the facts about it."""

    __slots__ = ("__weakref__", "_holding", "_issued")

    def __init__(self, holding: Holding, issued: Issued) -> None:
        self._holding = holding
        self._issued = issued

    @property
    def token(self) -> str:
        """The Vault token.

        Raises:
            CredentialEnded: when it has ended.
            AttributeError: when the credential has no token.
        """
        if "token" not in self._issued.secret.names():
            names = ", ".join(self.keys())
            raise AttributeError(f"this credential has no token; read credential[name] with one of: {names}")
        return str(self["token"])

    @property
    def vault_address(self) -> str:
        """Address of the Vault server that accepts the token; empty for leased credentials."""
        return self._vault("vault_address")

    @property
    def vault_namespace(self) -> str:
        """Vault namespace in which the token works; empty for the root namespace."""
        return self._vault("vault_namespace")

    def __getitem__(self, name: str) -> JsonValue:
        """Return one of the credential's values.

        Raises:
            CredentialEnded: when it has ended.
            KeyError: when there is no value of that name.
        """
        self._holding.check(self._issued)
        return self._issued.secret.reveal(name)

    def keys(self) -> tuple[str, ...]:
        """Return the names of the credential's values."""
        return self._issued.secret.names()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    @property
    def scope(self) -> str:
        """The scope that it was issued under."""
        return self._issued.scope

    @property
    def kind(self) -> str:
        """``vault_token`` or ``leased``."""
        return self._issued.kind

    @property
    def issuance_id(self) -> str:
        """The broker's record of it, by which auditors know it."""
        return self._issued.issuance_id

    @property
    def expires_at(self) -> datetime:
        """When it stops working, by the broker's clock."""
        return self._issued.term.expires_at

    @property
    def max_expires_at(self) -> datetime:
        """The latest time that renewals can reach, by the broker's clock."""
        return self._issued.term.max_expires_at

    @property
    def remaining(self) -> timedelta:
        """How long it still works; zero when it is over. Independent of either side's wall clock."""
        return timedelta(seconds=self._holding.left(self._issued))

    @property
    def renewable(self) -> bool:
        """Whether it can be prolonged."""
        return self._issued.renewable

    @property
    def revocability(self) -> Revocability:
        """How it can be taken back before its time."""
        return self._issued.revocability

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CredentialView) and self.issuance_id == other.issuance_id

    def __hash__(self) -> int:
        return hash(self.issuance_id)

    def _vault(self, name: str) -> str:
        return str(self._issued.secret.reveal(name)) if self.kind == "vault_token" else ""

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} scope={self.scope!r} issuance_id={self.issuance_id!r} "
            f"expires_at={self.expires_at.isoformat()} ***>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a credential cannot be pickled or copied; ask for one where it is needed")


class TaskView:
    """One unit of an agent's work, which owns every credential issued for it."""

    def __init__(self, core: TaskCore, *, eager: bool) -> None:
        self._core = core
        self._eager = eager

    @property
    def id(self) -> str | None:
        """The broker's identifier; None until the task has started."""
        return self._core.id

    @property
    def purpose(self) -> str:
        """Why the work is done."""
        return self._core.spec.purpose

    @property
    def deadline(self) -> datetime | None:
        """When the task ends by itself, by the broker's clock; None until it has started."""
        return self._core.deadline

    @property
    def ended(self) -> bool:
        """Whether it is over: completed here, or ended by the broker as far as is known here."""
        return self._core.ended

    @property
    def revocation_confirmed(self) -> bool:
        """Whether Vault has confirmed, when the task was completed, that nothing of it is left."""
        return self._core.revocation_confirmed

    def _failed_to_complete(self, failure: Exception, error: BaseException) -> None:
        """Tell of a failure to complete without hiding why the block was left."""
        text = str(failure) if isinstance(failure, Error) else type(failure).__name__
        note = f"task {self.id} could not be completed and ends at its deadline: {text}"
        _log.warning("%s", note)
        error.add_note(f"credbroker: {note}")

    def __repr__(self) -> str:
        state = "ended" if self.ended else "active" if self.id else "not started"
        return f"<{type(self).__name__} {self.id or '-'} {self.purpose!r} {state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a task cannot be pickled or copied")

"""One issued credential, and how long it lives by the local clock.

Lifetimes are differences between two of the broker's own times, counted on the
local monotonic clock from the moment the request was sent. A wrong wall clock
on either side does no harm, and what the network took is taken off: the local
view of a credential ends before the credential does.

The broker's time of an issuance is in its identifier, a UUIDv7; that of a
renewal is in its record. Where neither is there, the local wall clock stands
in for it.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NoReturn

from credbroker._clock import Clock
from credbroker._errors import BrokerFailed
from credbroker._wire import JsonValue, from_struct, made_at, to_time
from credbroker.v1 import credential_service_pb2, issuance_pb2


class Revocability(StrEnum):
    """How a credential can be taken back before its time."""

    INDIVIDUAL = "individual"
    WITH_TASK = "with_task"
    AT_EXPIRY = "at_expiry"


_REVOCABILITY = {
    issuance_pb2.REVOCABILITY_INDIVIDUAL: Revocability.INDIVIDUAL,
    issuance_pb2.REVOCABILITY_WITH_TASK: Revocability.WITH_TASK,
}


class Secret:
    """A credential's values, which do not show themselves."""

    __slots__ = ("__values",)

    def __init__(self, values: dict[str, JsonValue]) -> None:
        self.__values = values

    def names(self) -> tuple[str, ...]:
        """Return the values' names."""
        return tuple(self.__values)

    def reveal(self, name: str) -> JsonValue:
        """Return one value.

        Raises:
            KeyError: when there is none of that name.
        """
        return self.__values[name]

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a credential cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class Term:
    """How long a credential lives.

    Attributes:
        expires_at: The broker's word.
        max_expires_at: The latest time that renewals can reach.
        end: When it is over, in local monotonic seconds.
        refresh_at: From when on it should be replaced, in local monotonic
            seconds: once a fifth to a third of its life is left. The spread
            keeps many agents from asking at once.
    """

    expires_at: datetime
    max_expires_at: datetime
    end: float
    refresh_at: float


def term(
    sent: float,
    began: datetime | None,
    expires_at: datetime,
    max_expires_at: datetime,
    clock: Clock,
    chance: Callable[[], float] = random.random,
) -> Term:
    """Work a term out.

    Args:
        sent: When the request was sent, in local monotonic seconds.
        began: When the life began, by the broker's clock.
        expires_at: When it ends, by the broker's clock.
        max_expires_at: The latest that it can end, by the broker's clock.
        clock: The local clock.
        chance: Gives a number from 0 to 1.
    """
    if began is None:
        sent, began = clock.monotonic(), clock.now()
    life = (expires_at - began).total_seconds()
    left = life * (1 / 3 - chance() * (1 / 3 - 1 / 5))
    return Term(expires_at, max_expires_at, sent + life, sent + life - left)


@dataclass(slots=True, eq=False)
class Issued:
    """One issued credential. A renewal gives it a new term; the secret never changes.

    ``revoked`` means that its holder gave it back, ``ended`` that the broker
    said it is over.
    """

    issuance_id: str
    scope: str
    kind: str
    secret: Secret
    renewable: bool
    revocability: Revocability
    term: Term
    revoked: bool = False
    ended: bool = False


def read_issued(message: credential_service_pb2.Credential, scope: str, sent: float, clock: Clock) -> Issued:
    """Take a credential out of its message.

    Raises:
        BrokerFailed: when it is of a kind that this version does not know.
    """
    kind = message.WhichOneof("secret")
    if kind is None:
        raise BrokerFailed("the credential is of a kind unknown to this version of the credbroker package; update it")
    if kind == "vault_token":
        token = message.vault_token
        values: dict[str, JsonValue] = {
            "token": token.token,
            "vault_address": token.vault_address,
            "vault_namespace": token.vault_namespace,
        }
    else:
        values = from_struct(message.leased.data)
    expires_at, max_expires_at = to_time(message.expire_time), to_time(message.max_expire_time)
    return Issued(
        issuance_id=message.issuance_id,
        scope=scope,
        kind=kind,
        secret=Secret(values),
        renewable=message.renewable,
        revocability=_REVOCABILITY.get(message.revocability, Revocability.AT_EXPIRY),
        term=term(sent, made_at(message.issuance_id), expires_at, max_expires_at, clock),
    )

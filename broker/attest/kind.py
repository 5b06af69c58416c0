"""What every attestor provides. One module per kind, listed in `broker.attest.ATTESTORS`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeAlias, TypeVar

from broker.attest.chain import UnverifiedChain
from broker.attest.evidence import Attestor
from broker.attest.token import UnverifiedToken
from broker.clock import Clock
from broker.config import AttestorSettings
from broker.model import EvidenceKind, Identity

Unverified: TypeAlias = UnverifiedToken | UnverifiedChain


@dataclass(frozen=True, slots=True)
class Route:
    """Whose evidence an attestor is for; no two attestors have the same.

    Attributes:
        kind: The kind of evidence.
        authority: OIDC issuer or SPIFFE trust domain, compared exactly.
    """

    kind: EvidenceKind
    authority: str


class RoutedAttestor(Attestor, Protocol):
    """An attestor as `broker.attest.Attestation` uses it."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        ...

    @property
    def route(self) -> Route:
        """Whose evidence it is for."""
        ...

    @property
    def generation(self) -> int:
        """A number that changes whenever its keys do."""
        ...

    async def verify(self, unverified: Unverified, now: datetime) -> Identity:
        """Verify evidence that has been read; otherwise as `attest`."""
        ...

    async def check(self) -> None:
        """Load the keys unless that was done.

        Raises:
            KeysUnavailable: when they cannot be had.
        """
        ...

    def reload(self) -> None:
        """Read files again; what was read before stays in use when that fails.

        Raises:
            ConfigError: when a file cannot be used.
        """
        ...

    async def close(self) -> None:
        """Stop everything in the background."""
        ...


class AttestorKind(Protocol):
    """How attestors of one kind are configured and built."""

    @property
    def settings(self) -> type[AttestorSettings]:
        """The model of a configuration entry."""
        ...

    def build(self, entry: AttestorSettings, clock: Clock) -> RoutedAttestor:
        """Build an attestor.

        Raises:
            ConfigError: when a file that the entry names cannot be used.
            TypeError: when the entry is not of this kind.
        """
        ...


S = TypeVar("S", bound=AttestorSettings)


@dataclass(frozen=True, slots=True)
class Kind(Generic[S]):
    """An `AttestorKind` from its settings model and its constructor."""

    settings: type[S]
    constructor: Callable[[S, Clock], RoutedAttestor]

    def build(self, entry: AttestorSettings, clock: Clock) -> RoutedAttestor:
        """See `AttestorKind`."""
        if not isinstance(entry, self.settings):
            raise TypeError(f"{type(entry).__name__} is not {self.settings.__name__}")
        return self.constructor(entry, clock)

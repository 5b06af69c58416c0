"""Where an issuer's keys come from."""

from typing import Protocol

from broker.attest.file_keys import FileKeys
from broker.attest.jwk import VerificationKey
from broker.attest.key_set import KeyProfile
from broker.attest.settings import KeySettings
from broker.attest.url_keys import UrlKeys
from broker.clock import Clock


class KeySource(Protocol):
    """The keys of one issuer."""

    @property
    def generation(self) -> int:
        """A number that changes whenever the keys do."""
        ...

    async def select(self, key_id: str | None) -> VerificationKey:
        """Return the key that a token names, or the only one.

        Raises:
            EvidenceInvalid: when there is no such key.
            KeysUnavailable: when the keys cannot be had.
        """
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


def open_keys(settings: KeySettings, profile: KeyProfile, clock: Clock) -> KeySource:
    """Return the key source that the settings describe.

    Raises:
        ConfigError: when a file cannot be used.
    """
    if settings.file is not None:
        return FileKeys(settings.file, profile)
    if settings.url is not None:
        return UrlKeys(settings.url, settings, profile, clock)
    raise TypeError("key settings without file and url")

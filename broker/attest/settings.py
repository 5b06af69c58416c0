"""What the entries of several attestors have in common."""

from datetime import timedelta
from typing import Annotated, Final, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from broker.config import AttestorSettings, FilePath
from broker.document import Duration, Strict

LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})

Audiences = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=1024)], ...], Field(min_length=1, max_length=100, strict=False)
]
ClaimValue: TypeAlias = str | bool | int
KeysUrl = Annotated[
    str,
    Field(pattern=r"^https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~%/-]*)?(\?[A-Za-z0-9._~%=&+-]*)?$", max_length=2048),
]


def check_https(url: str) -> None:
    """Check that a URL has a host, a usable port, and is https or on loopback.

    Raises:
        ValueError: when it is not.
    """
    parts = urlsplit(url)
    if not parts.hostname or parts.port == 0:
        raise ValueError("must have a host and no port 0")
    if parts.scheme != "https" and parts.hostname not in LOOPBACK_HOSTS:
        raise ValueError("must be https, except on loopback")


class KeySettings(Strict):
    """Where an issuer's JSON Web Key Set comes from: a file or a URL.

    Attributes:
        file: Read at start and whenever the configuration is reloaded.
        url: Fetched on first use and refreshed. https, except on loopback.
        ca_file: CA bundle for the URL; the system's by default.
        allow_private: Whether the URL's host may have an address that is not
            public: private, loopback, link-local.
        refresh: After how long a fetched set is fetched again.
        cooldown: The least time between two fetches, whatever tokens arrive.
        max_stale: How long the last good set stays in use when fetching fails.
    """

    file: FilePath | None = None
    url: KeysUrl | None = None
    ca_file: FilePath | None = None
    allow_private: bool = False
    refresh: Duration = timedelta(minutes=10)
    cooldown: Duration = timedelta(seconds=30)
    max_stale: Duration = timedelta(hours=24)

    @model_validator(mode="after")
    def _consistent(self) -> "KeySettings":
        if (self.file is None) == (self.url is None):
            raise ValueError("must name either file or url")
        if self.url is None:
            if self.ca_file is not None or self.allow_private:
                raise ValueError("ca_file and allow_private go with url")
            return self
        check_https(self.url)
        if self.url.startswith("http://") and not self.allow_private:
            raise ValueError("a url on loopback needs allow_private: true")
        if not self.cooldown <= self.refresh <= self.max_stale:
            raise ValueError("cooldown, refresh and max_stale must not decrease in this order")
        return self


class TokenSettings(AttestorSettings):
    """What attestors of signed tokens share.

    Attributes:
        audiences: A token must be meant for one of these.
        single_audience: Whether a token that is meant for others as well is
            refused: each of them could present it here.
        leeway: How far the issuer's clock may be off.
        max_lifetime: The longest a token may be valid, from its ``iat``, or
            from now when it has none.
    """

    audiences: Audiences
    single_audience: bool = True
    leeway: Annotated[Duration, Field(le=timedelta(minutes=5))] = timedelta(seconds=30)
    max_lifetime: Duration = timedelta(hours=24)

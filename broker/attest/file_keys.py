"""Keys that are in a file."""

from pathlib import Path

from broker.attest.files import read_file
from broker.attest.jwk import VerificationKey
from broker.attest.key_set import KeyProfile, KeySet, parse_key_set
from broker.errors import ConfigError


class FileKeys:
    """Keys from a file, read at start and on reload."""

    def __init__(self, file: Path, profile: KeyProfile) -> None:
        self._file = file
        self._profile = profile
        self._data = read_file(file)
        self._keys = self._parse(self._data)
        self.generation = 0
        if not self._keys.keys:
            raise ConfigError(f"{file}: holds no usable key: {'; '.join(self._keys.ignored) or 'it is empty'}")

    async def select(self, key_id: str | None) -> VerificationKey:
        """See `broker.attest.key_source.KeySource`."""
        return self._keys.select(key_id)

    async def check(self) -> None:
        """See `broker.attest.key_source.KeySource`."""

    def reload(self) -> None:
        """See `broker.attest.key_source.KeySource`.

        A set without usable keys is taken over: it says that nobody is trusted.
        """
        data = read_file(self._file)
        if data != self._data:
            self._keys = self._parse(data)
            self._data = data
            self.generation += 1

    async def close(self) -> None:
        """See `broker.attest.key_source.KeySource`."""

    def _parse(self, data: bytes) -> KeySet:
        try:
            return parse_key_set(data, self._profile)
        except ValueError as error:
            raise ConfigError(f"{self._file}: {error}") from None

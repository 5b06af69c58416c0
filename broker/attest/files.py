"""Reading the files that say whom to trust."""

from pathlib import Path
from typing import Final

from broker.errors import ConfigError

MAX_FILE_BYTES: Final = 1024 * 1024


def read_file(file: Path) -> bytes:
    """Return a file's content.

    Raises:
        ConfigError: when it cannot be read or is larger than `MAX_FILE_BYTES`.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{file}: must be at most {MAX_FILE_BYTES} bytes")
    return data

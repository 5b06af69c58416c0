"""The server's configuration, as its commands load, check and describe it."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from broker import attest
from broker.clock import SystemClock
from broker.config import Settings, load_settings
from broker.errors import ConfigError, FieldViolation
from broker.secret import Secret, SecretText

FINGERPRINT_KEY_BYTES = 32


def load(file: Path) -> Settings:
    """Read the configuration.

    Raises:
        ConfigError: with every problem: file, path in it and what was
            expected there.
    """
    return load_settings(file, attest.SETTINGS)


def check(file: Path) -> Settings:
    """Read the configuration and everything it points to.

    Raises:
        ConfigError: as `load`, and for files that are missing, unreadable or
            not what they should be.
    """
    settings = load(file)
    problems = list(_file_problems(settings, ""))
    if problems:
        raise ConfigError(
            "\n".join(f"{file}: {problem.field}: {problem.description}" for problem in problems),
            violations=tuple(problems),
        )
    attest.Attestation(settings.attestors, SystemClock())
    return settings


def _file_problems(section: BaseModel, where: str) -> Iterator[FieldViolation]:
    for name in type(section).model_fields:
        value, path = getattr(section, name), f"{where}.{name}" if where else name
        if isinstance(value, BaseModel):
            yield from _file_problems(value, path)
        elif isinstance(value, tuple):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _file_problems(item, f"{path}[{index}]")
        elif isinstance(value, Path):
            yield from _unusable(value, path)


def _unusable(file: Path, where: str) -> Iterator[FieldViolation]:
    try:
        with file.open("rb") as stream:
            start = stream.read(FINGERPRINT_KEY_BYTES)
    except OSError as error:
        yield FieldViolation(where, f"{file} cannot be read: {error.strerror}")
        return
    if not start:
        yield FieldViolation(where, f"{file} is empty")
    elif where == "fingerprint_key_file" and len(start) < FINGERPRINT_KEY_BYTES:
        yield FieldViolation(where, f"{file} must hold at least {FINGERPRINT_KEY_BYTES} random bytes")


def database_url(settings: Settings) -> SecretText:
    """Return the database's URL, which may hold a password."""
    return Secret(settings.database.url.get_secret_value())


def describe(settings: Settings) -> list[str]:
    """Return what the configuration says, in a few lines and without secrets."""
    listeners = {"bearer": settings.listen.bearer, "mutual": settings.listen.mutual}
    where = ", ".join(f"{name} on {listener.address}" for name, listener in listeners.items() if listener)
    attestors = ", ".join(f"{entry.name} ({entry.kind})" for entry in settings.attestors)
    roles = ", ".join(f"{role} ({len(entries)})" for role, entries in sorted(settings.access.items())) or "none"
    return [
        "the configuration is valid",
        f"  listens    {where}",
        f"  database   {settings.database.url.get_secret_value().partition(':')[0]}",
        f"  vault      {settings.vault.address}",
        f"  attestors  {attestors}",
        f"  roles      {roles}",
    ]

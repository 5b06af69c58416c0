"""Typed settings: one YAML file, overridden by the environment.

An environment variable ``CREDBROKER_<SECTION>__<KEY>`` overrides one value,
for example ``CREDBROKER_VAULT__ADDRESS``. Unknown keys are refused wherever
they stand. Relative paths count from the configuration file's folder.
"""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, SerializeAsAny, ValidationError, ValidationInfo

from broker.document import Duration, Strict, Who
from broker.errors import ConfigError, FieldViolation
from broker.model import Role
from broker.reading import load_yaml, violations_of

ENVIRONMENT_PREFIX = "CREDBROKER_"
MAX_CONFIG_BYTES = 1024 * 1024


def _path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError("must be a path")
    folder = info.context["folder"] if info.context else Path.cwd()
    return Path(folder, value)


def _port(address: str) -> str:
    if int(address.rpartition(":")[2]) > 65535:
        raise ValueError("must have a port of at most 65535")
    return address


FilePath = Annotated[Path, BeforeValidator(_path)]
Address = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$"), AfterValidator(_port)]
HttpsUrl = Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~/-]*)?$", max_length=2048)]


class Tls(Strict):
    """Server certificate chain and private key, PEM. Both are read again when they change."""

    certificate: FilePath
    private_key: FilePath


class Listener(Strict):
    """Where to listen, as ``host:port``, and with which certificate. Port 0 picks a free one."""

    address: Address
    tls: Tls


class Listen(Strict):
    """The two listeners; at least one is needed.

    Attributes:
        bearer: TLS; callers send a token.
        mutual: Mutual TLS; callers present an X.509-SVID.
    """

    bearer: Listener | None = None
    mutual: Listener | None = None


class Database(Strict):
    """SQLAlchemy URL: ``sqlite:///file`` or ``postgresql+psycopg://…``.

    The URL may hold a password, hence it is not shown.
    """

    url: SecretStr


class TokenFileAuth(Strict):
    """A Vault token in a file that something else keeps fresh (Vault Agent, for instance)."""

    kind: Literal["token_file"]
    file: FilePath


class AppRoleAuth(Strict):
    """Vault's AppRole login."""

    kind: Literal["approle"]
    role_id: str
    secret_id_file: FilePath
    mount: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "approle"


VaultAuth = Annotated[TokenFileAuth | AppRoleAuth, Field(discriminator="kind")]


class Vault(Strict):
    """How to reach Vault or OpenBao.

    Attributes:
        address: Base URL; plain http is accepted for loopback only.
        ca_file: CA bundle; the system's by default.
        namespace: Vault namespace of the broker's mounts.
        public_address: What agents are told; ``address`` by default.
        auth: The broker's own identity.
        reaper_auth: A second identity that may list token accessors. Without
            it, a token whose creation was cut off by a crash dies at its
            maximum time to live instead of at once.
        reap_interval: How often Vault's books are compared with the records,
            with that second identity.
        timeout: For one call.
        max_clock_difference: Beyond it, between the broker's clock and Vault's,
            nothing is issued and nothing is ended by time.
    """

    address: HttpsUrl
    ca_file: FilePath | None = None
    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_/-]{0,128}$")] = ""
    public_address: HttpsUrl | None = None
    auth: VaultAuth
    reaper_auth: VaultAuth | None = None
    reap_interval: Duration = timedelta(minutes=5)
    timeout: Duration = timedelta(seconds=5)
    max_clock_difference: Duration = timedelta(seconds=30)


class AttestorSettings(Strict):
    """What every attestor's entry has; each kind adds its own fields."""

    kind: str
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Tasks(Strict):
    """Bounds of tasks.

    Attributes:
        default_timeout: When the agent names none.
        max_timeout: The longest a task may take.
    """

    default_timeout: Duration = timedelta(hours=1)
    max_timeout: Duration = timedelta(hours=24)


class Limits(Strict):
    """Bounds of the server.

    Attributes:
        max_connections: Of each listener; more are closed at once.
        max_message_bytes: Largest request.
        max_concurrent_requests: More are refused with OVERLOADED.
        max_running: Most of those that run at once; identities take turns. No
            more than a sixth of `max_concurrent_requests` count.
        max_waiting_per_identity: Requests of one identity that wait for their
            turn; more are refused with OVERLOADED.
        max_request_time: Deadline of a request that has none, or a later one.
        drain_timeout: How long running requests may take after SIGTERM.
        revocation_wait: How long whatever takes credentials back waits for
            Vault's confirmation before it says what is pending.
    """

    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 1024
    max_message_bytes: Annotated[int, Field(ge=1024, le=4 * 1024 * 1024)] = 128 * 1024
    max_concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] = 512
    max_running: Annotated[int, Field(ge=1, le=10_000)] = 32
    max_waiting_per_identity: Annotated[int, Field(ge=1, le=10_000)] = 100
    max_request_time: Duration = timedelta(seconds=30)
    drain_timeout: Duration = timedelta(seconds=20)
    revocation_wait: Duration = timedelta(seconds=2)


def _window(span: timedelta) -> timedelta:
    if span > timedelta(hours=1):
        raise ValueError("must be at most 1h")
    return span


class Threshold(Strict):
    """So many within such a span, at most an hour."""

    count: Annotated[int, Field(ge=1, le=100_000)]
    within: Annotated[Duration, AfterValidator(_window)]


class AutomaticLocks(Strict):
    """When the broker locks an agent by itself; what is absent locks nobody.

    Attributes:
        refusals: So many requests refused for what the agent asked.
        issuances: So many credentials issued.
        ttl: How long such a lock lasts.
    """

    refusals: Threshold | None = None
    issuances: Threshold | None = None
    ttl: Duration = timedelta(minutes=15)


class Log(Strict):
    """Structured logs on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Metrics(Strict):
    """Where Prometheus may scrape, as ``host:port``: plain HTTP that needs no identity. Port 0 picks a free one."""

    address: Address


class Traces(Strict):
    """Where OpenTelemetry traces go.

    Attributes:
        endpoint: An OTLP receiver over HTTP, with its path.
        sample_ratio: Which part of all traces is kept, 0 to 1.
        ca_file: CA bundle; the system's by default.
    """

    endpoint: HttpsUrl
    sample_ratio: Annotated[float, Field(ge=0, le=1, strict=False)] = 1.0
    ca_file: FilePath | None = None


Entries = Annotated[tuple[Who, ...], Field(strict=False)]


class Settings(Strict):
    """The whole configuration.

    Attributes:
        access: Which identities have which role. Every attested identity is an
            agent, unless ``agent`` is listed: then only those it names are.
        fingerprint_key_file: At least 32 random bytes; the key of the
            fingerprints by which leaked credentials are traced.
        metrics: Nothing is measured without it.
        traces: Nothing is traced without it.
        reflection: Whether gRPC server reflection answers.
    """

    listen: Listen
    database: Database
    vault: Vault
    attestors: Annotated[tuple[SerializeAsAny[AttestorSettings], ...], Field(min_length=1, strict=False)]
    access: dict[Annotated[Role, Field(strict=False)], Entries] = {}
    fingerprint_key_file: FilePath
    tasks: Tasks = Tasks()
    limits: Limits = Limits()
    automatic_locks: AutomaticLocks = AutomaticLocks()
    log: Log = Log()
    metrics: Metrics | None = None
    traces: Traces | None = None
    reflection: bool = False


def load_settings(
    file: Path, attestors: Mapping[str, type[AttestorSettings]], environ: Mapping[str, str] = os.environ
) -> Settings:
    """Read the configuration.

    Args:
        file: The YAML file.
        attestors: The settings model of each kind of attestor.
        environ: The environment.

    Raises:
        ConfigError: with the file or environment variable, the path in it and
            what was expected.
    """
    raw = _read(file)
    variables = _override(raw, environ)
    context = {"folder": file.resolve().parent}
    violations: list[FieldViolation] = []
    parsed = _with_attestors(raw, attestors, context, violations)
    try:
        settings = Settings.model_validate(parsed, context=context)
    except ValidationError as error:
        found = violations_of(error, source=raw)
        if violations:  # the attestors have been judged by their own models
            found = tuple(item for item in found if not re.match(r"attestors(\[|$)", item.field))
        raise _invalid(file, variables, (*violations, *found)) from None
    if not violations:
        violations.extend(_contradictions(settings))
    if violations:
        raise _invalid(file, variables, tuple(violations))
    return settings


def _read(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{file}: must be at most {MAX_CONFIG_BYTES} bytes")
    try:
        raw = load_yaml(content.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: must be UTF-8 text") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: is not readable YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: must be a mapping of sections")
    return raw


def _override(raw: dict[str, object], environ: Mapping[str, str]) -> dict[str, str]:
    """Put the environment's values in place; return which variable gave which path.

    A section that is not in the file was given by the first variable below it.
    """
    variables: dict[str, str] = {}
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or "__" not in name:
            continue
        path = name.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        section: dict[str, object] = raw
        for depth, part in enumerate(path[:-1], 1):
            if part not in section:
                variables[".".join(path[:depth])] = name
            nested = section.setdefault(part, {})
            if not isinstance(nested, dict):
                raise ConfigError(f"environment variable {name}: {part} is not a section")
            section = nested
        try:
            section[path[-1]] = load_yaml(environ[name])
        except yaml.YAMLError:
            raise ConfigError(f"environment variable {name}: is not a readable value") from None
        variables[".".join(path)] = name
    return variables


def _with_attestors(
    raw: dict[str, object],
    models: Mapping[str, type[AttestorSettings]],
    context: dict[str, Path],
    violations: list[FieldViolation],
) -> dict[str, object]:
    """Return the configuration with each attestor's entry read by the model of its kind."""
    entries = raw.get("attestors")
    if not isinstance(entries, list):
        return raw
    parsed: list[AttestorSettings] = []
    for index, entry in enumerate(entries):
        where = f"attestors[{index}]"
        model = models.get(str(entry.get("kind"))) if isinstance(entry, dict) else None
        if model is None:
            violations.append(FieldViolation(f"{where}.kind", f"must be one of {', '.join(sorted(models))}"))
            continue
        try:
            parsed.append(model.model_validate(entry, context=context))
        except ValidationError as error:
            violations.extend(violations_of(error, where, entry))
    return {**raw, "attestors": parsed}


def _invalid(file: Path, variables: Mapping[str, str], violations: tuple[FieldViolation, ...]) -> ConfigError:
    lines = []
    for item in violations:
        given = [path for path in variables if f"{item.field}.".startswith(f"{path}.")]
        where = f"environment variable {variables[max(given, key=len)]}" if given else str(file)
        lines.append(f"{where}: {item.field}: {item.description}")
    return ConfigError("\n".join(lines), violations=violations)


def _contradictions(settings: Settings) -> Iterator[FieldViolation]:
    if settings.listen.bearer is None and settings.listen.mutual is None:
        yield FieldViolation("listen", "needs bearer, mutual or both")
    names = [entry.name for entry in settings.attestors]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield FieldViolation(f"attestors[{index}].name", f"{name!r} is given twice")
    if settings.tasks.default_timeout > settings.tasks.max_timeout:
        yield FieldViolation("tasks.default_timeout", "must not be longer than tasks.max_timeout")
    for field, address in (("address", settings.vault.address), ("public_address", settings.vault.public_address)):
        if address is not None and address.startswith("http://") and not _loopback(address):
            yield FieldViolation(f"vault.{field}", "must be https, except on loopback")


def _loopback(url: str) -> bool:
    host = url.removeprefix("http://").split("/", 1)[0]
    host = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return host in ("127.0.0.1", "localhost", "[::1]")

"""The configuration: unknown and wrong settings are named with their place."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from broker.config import MAX_CONFIG_BYTES, AppRoleAuth, AttestorSettings, Settings, TokenFileAuth, load_settings
from broker.document import Who
from broker.errors import ConfigError
from broker.model import Role

CANARY = "s3cr3t-canary"


class Issuer(AttestorSettings):
    """An attestor with a field of its own."""

    issuer: str


class Bundle(AttestorSettings):
    """An attestor without any."""


MODELS: Mapping[str, type[AttestorSettings]] = {"oidc": Issuer, "x509_svid": Bundle}

BASE: Mapping[str, object] = {
    "listen": {"bearer": {"address": "127.0.0.1:8443", "tls": {"certificate": "tls/a.pem", "private_key": "/k.pem"}}},
    "database": {"url": "sqlite:///broker.db"},
    "vault": {"address": "https://vault.example:8200", "auth": {"kind": "token_file", "file": "token"}},
    "attestors": [{"kind": "oidc", "name": "ci", "issuer": "https://issuer.example"}],
    "fingerprint_key_file": "key",
}


class Config:
    """A configuration file that a test writes and loads."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "broker.yaml"

    def load(self, environ: Mapping[str, str] | None = None, /, **changes: object) -> Settings:
        sections = {key: value for key, value in {**BASE, **changes}.items() if value is not None}
        return self.load_text(yaml.safe_dump(sections), environ)

    def load_text(self, text: str, environ: Mapping[str, str] | None = None) -> Settings:
        self.file.write_text(text)
        return load_settings(self.file, MODELS, environ or {})

    def problems(self, environ: Mapping[str, str] | None = None, /, **changes: object) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load(environ, **changes)
        assert caught.value.__cause__ is None
        return str(caught.value).replace(f"{self.file}: ", "").splitlines()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path)


def test_the_least_that_is_needed(config: Config, tmp_path: Path) -> None:
    settings = config.load()
    assert settings.listen.mutual is None
    assert settings.listen.bearer is not None
    assert settings.listen.bearer.tls.certificate == tmp_path / "tls" / "a.pem"
    assert settings.listen.bearer.tls.private_key == Path("/k.pem")
    assert settings.database.url.get_secret_value() == "sqlite:///broker.db"
    assert settings.vault.auth == TokenFileAuth(kind="token_file", file=tmp_path / "token")
    assert settings.attestors == (Issuer(kind="oidc", name="ci", issuer="https://issuer.example"),)
    assert settings.access == {}
    assert settings.tasks.default_timeout == timedelta(hours=1)
    assert settings.limits.max_concurrent_requests == 512
    assert settings.reflection is False


def test_everything_else(config: Config, tmp_path: Path) -> None:
    settings = config.load(
        listen={"mutual": {"address": "[::1]:0", "tls": {"certificate": "a", "private_key": "b"}}},
        vault={
            "address": "http://127.0.0.1:8200/base",
            "public_address": "https://vault.example",
            "namespace": "team/a",
            "ca_file": "ca.pem",
            "timeout": "2s",
            "auth": {"kind": "approle", "role_id": "r", "secret_id_file": "s"},
            "reaper_auth": {"kind": "token_file", "file": "t"},
        },
        access={"admin": [{"issuer": "https://issuer.example", "subject": "ops/*"}], "agent": []},
        tasks={"default_timeout": "10m", "max_timeout": "2h"},
        log={"level": "debug", "format": "text"},
        limits={"max_message_bytes": 2048, "drain_timeout": "5s"},
        reflection=True,
    )
    assert settings.vault.auth == AppRoleAuth(kind="approle", role_id="r", secret_id_file=tmp_path / "s")
    assert settings.vault.ca_file == tmp_path / "ca.pem"
    assert settings.access == {Role.ADMIN: (Who(issuer="https://issuer.example", subject="ops/*"),), Role.AGENT: ()}
    assert settings.tasks.max_timeout == timedelta(hours=2)


TLS = {"certificate": "a", "private_key": "b"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"listen": {}}, "listen: needs bearer, mutual or both"),
        ({"listen": None}, "listen: is required"),
        ({"listen": {"bearer": {"address": "127.0.0.1:8443"}}}, "listen.bearer.tls: is required"),
        (
            {"listen": {"bearer": {"address": "a:65536", "tls": TLS}}},
            "listen.bearer.address: must have a port of at most",
        ),
        ({"listen": {"bearer": {"address": "a", "tls": TLS}}}, "listen.bearer.address: must match "),
        (
            {"listen": {"bearer": {"address": "a:1", "tls": {**TLS, "certificate": 5}}}},
            "listen.bearer.tls.certificate: must be",
        ),
        ({"database": {"url": 5}}, "database.url: must be text"),
        ({"database": {"url": "x", "pool": 5}}, "database.pool: is not a known key"),
        ({"vault": {**BASE["vault"], "address": "http://vault.example"}}, "vault.address: must be https, except on"),  # type: ignore[dict-item]
        ({"vault": {"address": "https://v"}}, "vault.auth: is required"),
        ({"vault": {"address": "https://v", "auth": {}}}, "vault.auth: must have a 'kind'"),
        (
            {"vault": {"address": "https://v", "auth": {"kind": "x"}}},
            "vault.auth: must have as 'kind' one of 'token_file'",
        ),
        ({"vault": {"address": "https://v", "auth": {"kind": "token_file"}}}, "vault.auth.file: is required"),
        ({"vault": {"address": "https://v", "auth": {"kind": "approle", "x": 1}}}, "vault.auth.role_id: is required"),
        ({"attestors": None}, "attestors: is required"),
        ({"attestors": []}, "attestors: must not be empty"),
        ({"attestors": {}}, "attestors: must be a list"),
        ({"access": {"root": []}}, "access.root: must be 'agent', 'admin', 'approver' or 'auditor'"),
        ({"access": {"admin": [{}]}}, "access.admin[0]: must name either spiffeId or issuer"),
        ({"access": {"admin": [{"issuer": "a", "claims": {"b": 1.5}}]}}, "access.admin[0].claims.b: must be text, a"),
        ({"tasks": {"default_timeout": "2h", "max_timeout": "1h"}}, "tasks.default_timeout: must not be longer than"),
        ({"tasks": {"max_timeout": 60}}, "tasks.max_timeout: must be a duration such as 90s, 15m or 2h"),
        ({"limits": {"max_message_bytes": 1}}, "limits.max_message_bytes: must be at least 1024"),
        ({"limits": {"max_concurrent_requests": 1000000}}, "limits.max_concurrent_requests: must be at most 100000"),
        ({"log": {"level": "trace"}}, "log.level: must be 'debug', 'info', 'warning' or 'error'"),
        ({"reflection": "yes"}, "reflection: must be true or false"),
        ({"fingerprint_key_file": None}, "fingerprint_key_file: is required"),
        ({"unknown": 1}, "unknown: is not a known key"),
    ],
)
def test_says_where_and_what_was_expected(config: Config, changes: dict[str, object], problem: str) -> None:
    assert config.problems(**changes)[0].startswith(problem)


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8200", "http://localhost", "http://[::1]:8200", "http://[::1]", "https://vault.example"],
)
def test_plain_http_is_for_loopback(config: Config, address: str) -> None:
    vault = {"address": "https://v", "public_address": address, "auth": {"kind": "token_file", "file": "t"}}
    assert config.load(vault=vault).vault.public_address == address


@pytest.mark.parametrize(
    "address",
    [
        "http://vault.example",
        "http://127.0.0.1.evil",
        "http://localhost.evil:80",
        "http://[::2]:8200",
        "http://10.0.0.1",
    ],
)
def test_plain_http_is_for_nothing_else(config: Config, address: str) -> None:
    vault = {"address": "https://v", "public_address": address, "auth": {"kind": "token_file", "file": "t"}}
    assert config.problems(vault=vault) == ["vault.public_address: must be https, except on loopback"]


@pytest.mark.parametrize(
    "address", ["http://u:p@127.0.0.1", "ftp://v", "https://v?x", "https://v#x", "https://v/a b", "v"]
)
def test_addresses_that_are_none(config: Config, address: str) -> None:
    (problem,) = config.problems(vault={"address": address, "auth": {"kind": "token_file", "file": "t"}})
    assert problem.startswith("vault.address: must match ")


def test_attestors_are_judged_by_their_own_models(config: Config) -> None:
    attestors = [
        {"kind": "oidc", "name": "a"},
        {"kind": "saml", "name": "b"},
        "x509_svid",
        {"kind": "x509_svid", "name": "B!", "issuer": "x"},
        {"kind": "x509_svid", "name": "c"},
    ]
    problems = config.problems(attestors=attestors)
    assert problems == [
        "attestors[0].issuer: is required",
        "attestors[1].kind: must be one of oidc, x509_svid",
        "attestors[2].kind: must be one of oidc, x509_svid",
        problems[3],
        "attestors[3].issuer: is not a known key",
    ]
    assert problems[3].startswith("attestors[3].name: must match ")


def test_attestors_that_are_all_wrong_are_not_called_too_few(config: Config) -> None:
    assert config.problems(attestors=[{"kind": "saml"}]) == ["attestors[0].kind: must be one of oidc, x509_svid"]


def test_what_is_wrong_elsewhere_is_named_too(config: Config) -> None:
    assert config.problems(attestors=[{"kind": "saml"}], unknown=1) == [
        "attestors[0].kind: must be one of oidc, x509_svid",
        "unknown: is not a known key",
    ]


def test_names_of_attestors_are_used_once(config: Config) -> None:
    attestors = [{"kind": "x509_svid", "name": name} for name in ("a", "b", "a")]
    assert config.problems(attestors=attestors) == ["attestors[2].name: 'a' is given twice"]


def test_places_are_those_in_the_file_when_an_entry_before_is_wrong(config: Config) -> None:
    attestors = [{"kind": "saml"}, *({"kind": "x509_svid", "name": "a"} for _ in range(2))]
    assert config.problems(attestors=attestors) == ["attestors[0].kind: must be one of oidc, x509_svid"]


def test_the_environment_overrides_single_values(config: Config) -> None:
    settings = config.load(
        {
            "CREDBROKER_VAULT__ADDRESS": "https://other.example",
            "CREDBROKER_DATABASE__URL": "postgresql+psycopg://u:p@db/broker?sslmode=require",
            "CREDBROKER_LIMITS__MAX_CONCURRENT_REQUESTS": "7",
            "CREDBROKER_LISTEN__BEARER__ADDRESS": "0.0.0.0:9000",
            "CREDBROKER_TASKS__MAX_TIMEOUT": "3h",
            "CREDBROKER_ADDRESS": "for the client",
            "OTHER_VAULT__ADDRESS": "https://ignored.example",
            "CREDBROKER": "x",
        }
    )
    assert settings.vault.address == "https://other.example"
    assert settings.database.url.get_secret_value() == "postgresql+psycopg://u:p@db/broker?sslmode=require"
    assert settings.limits.max_concurrent_requests == 7
    assert settings.limits.max_message_bytes == 128 * 1024
    assert settings.listen.bearer is not None
    assert settings.listen.bearer.address == "0.0.0.0:9000"
    assert settings.tasks.max_timeout == timedelta(hours=3)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("CREDBROKER_VALT__ADDRESS", "x", "environment variable CREDBROKER_VALT__ADDRESS: valt: is not a known key"),
        (
            "CREDBROKER_VAULT__ADRESS",
            "x",
            "environment variable CREDBROKER_VAULT__ADRESS: vault.adress: is not a known key",
        ),
        (
            "CREDBROKER_TASKS__MAX_TIMEOUT",
            "60",
            "environment variable CREDBROKER_TASKS__MAX_TIMEOUT: tasks.max_timeout: must be a duration",
        ),
        (
            "CREDBROKER_VAULT__NAMESPACE",
            "",
            "environment variable CREDBROKER_VAULT__NAMESPACE: vault.namespace: must be text",
        ),
        (
            "CREDBROKER_REFLECTION__X",
            "x",
            "environment variable CREDBROKER_REFLECTION__X: reflection is not a section",
        ),
        (
            "CREDBROKER_ATTESTORS__X",
            "x",
            "environment variable CREDBROKER_ATTESTORS__X: attestors is not a section",
        ),
        (
            "CREDBROKER_DATABASE__URL",
            f"'{CANARY}",
            "environment variable CREDBROKER_DATABASE__URL: is not a readable value",
        ),
    ],
)
def test_a_wrong_variable_is_named(config: Config, name: str, value: str, problem: str) -> None:
    (found,) = config.problems({name: value}, reflection=False)
    assert found.startswith(problem)


def test_each_of_several_variables_answers_for_its_own(config: Config) -> None:
    environ = {"CREDBROKER_LOG__FORMAT": "json", "CREDBROKER_LOG__LEVEL": "loud", "CREDBROKER_LOG__COLOUR": "red"}
    assert config.problems(environ, unknown=1) == [
        "environment variable CREDBROKER_LOG__LEVEL: log.level: must be 'debug', 'info', 'warning' or 'error'",
        "environment variable CREDBROKER_LOG__COLOUR: log.colour: is not a known key",
        "unknown: is not a known key",
    ]


def test_the_environment_is_the_process_s_own_by_default(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config.load()
    monkeypatch.setenv("CREDBROKER_VAULT__ADDRESS", "https://own.example")
    assert "CREDBROKER_VAULT__ADDRESS" in os.environ
    assert load_settings(config.file, MODELS).vault.address == "https://own.example"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must be a mapping of sections"),
        ("- a", "must be a mapping of sections"),
        ("a: 1\na: 2", "is not readable YAML: line 2, column 1: key 'a' is given twice"),
        ("a: &x {}\nb: *x", "is not readable YAML: line 2, column 4: aliases are not allowed"),
        (f"database: {{url: 'sqlite://{CANARY}", "is not readable YAML: line 1, "),
        ("[" * 5000, "is not readable YAML: is nested too deeply"),
        ("#" * (MAX_CONFIG_BYTES + 1), "must be at most 1048576 bytes"),
    ],
)
def test_files_that_are_no_configuration(config: Config, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load_text(text)
    assert str(caught.value).startswith(f"{config.file}: {problem}")
    assert CANARY not in f"{caught.value!r}"


def test_a_file_that_is_no_text(config: Config) -> None:
    config.file.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="must be UTF-8 text"):
        load_settings(config.file, MODELS, {})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for place, problem in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"cannot be read: {problem}"):
            load_settings(place, MODELS, {})


def test_the_password_in_the_database_url_is_not_shown(config: Config) -> None:
    settings = config.load(database={"url": f"postgresql://u:{CANARY}@db"})
    assert CANARY not in f"{settings} {settings!r}"
    problems = config.problems(database={"url": f"postgresql://u:{CANARY}@db", "x": 1})
    assert CANARY not in "".join(problems)
    assert CANARY not in "".join(config.problems(database={"url": [CANARY]}))

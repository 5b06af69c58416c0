import json
import stat
from pathlib import Path

import hvac
import pytest
import requests

from broker.dev.openbao import OpenBao
from broker.errors import Unavailable
from tests.fixtures.openbao import put_secret, read_secret


def test_data_survives_a_restart_and_a_crash_when_kept(tmp_path: Path) -> None:
    with OpenBao.start(tmp_path / "bao", keep=True) as first:
        first.mount_kv("secret")
        put_secret(first.client(), "app", {"a": "b"})
    with OpenBao.start(tmp_path / "bao", keep=True) as second:
        assert read_secret(second.client(), "app") == {"a": "b"}
        second.kill()
    with OpenBao.start(tmp_path / "bao", keep=True) as third:
        assert read_secret(third.client(), "app") == {"a": "b"}
    assert stat.S_IMODE((tmp_path / "bao" / "keys.json").stat().st_mode) == 0o600


def test_the_root_token_is_kept_only_when_asked_for(tmp_path: Path) -> None:
    with OpenBao.start(tmp_path) as server:
        token = server.root_token.reveal().encode()
        for file in tmp_path.rglob("*"):
            assert not file.is_file() or token not in file.read_bytes(), file


def test_a_taken_port_is_reported_with_the_servers_own_words(openbao: OpenBao, tmp_path: Path) -> None:
    port = int(openbao.address.rsplit(":", 1)[1])
    with pytest.raises(Unavailable, match="address already in use"):
        OpenBao.start(tmp_path, port=port)


def test_serves_tls_and_writes_its_audit_log(openbao: OpenBao, vault_admin: hvac.Client) -> None:
    assert openbao.address.startswith("https://127.0.0.1:")
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"{openbao.address}/v1/sys/health", timeout=5)
    vault_admin.auth.token.lookup_self()
    paths = [json.loads(line)["request"]["path"] for line in openbao.audit_log.read_text().splitlines()]
    assert "auth/token/lookup-self" in paths

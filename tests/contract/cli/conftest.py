from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from broker.cli.app import app
from broker.dev.pki import DevAuthority
from tests.fakes.operators import TOKEN, FakeBroker, serving

CONNECTION = ("ADDRESS", "CA_FILE", "TOKEN", "TOKEN_FILE", "CERT_FILE", "KEY_FILE")


@pytest.fixture(scope="session")
def authority() -> DevAuthority:
    return DevAuthority()


@pytest.fixture
def fake() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def address(fake: FakeBroker, authority: DevAuthority) -> Iterator[str]:
    with serving(fake, authority) as where:
        yield where


class Command:
    """Runs `broker` as from a shell, connected to the fake by the environment."""

    def __init__(self, address: str, ca_file: Path) -> None:
        self.environ: dict[str, str | None] = {f"CREDBROKER_{name}": None for name in CONNECTION}
        self.environ |= {f"VAULT_{name}": None for name in ("ADDR", "TOKEN", "CACERT", "NAMESPACE")}
        self.environ |= {
            "CREDBROKER_ADDRESS": address,
            "CREDBROKER_CA_FILE": str(ca_file),
            "CREDBROKER_TOKEN": TOKEN,
            "COLUMNS": "80",
            "NO_COLOR": "1",
        }

    def __call__(self, *words: str, answer: str = "", expect: int = 0) -> Result:
        result = CliRunner().invoke(app, list(words), input=answer, env=self.environ)
        assert result.exit_code == expect, result.output
        return result


@pytest.fixture
def broker(address: str, authority: DevAuthority, tmp_path: Path) -> Command:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(authority.certificate_pem)
    return Command(address, ca_file)

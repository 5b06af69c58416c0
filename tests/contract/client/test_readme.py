"""The README's examples run as they are printed."""

import ast
import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import credbroker
import pytest

from tests.contract.client.conftest import MakeClient
from tests.fakes.broker import DEFAULT_TOKEN, FakeBroker, FakeScope

README = Path(__file__).parents[3] / "clients" / "python" / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example(example: str, broker: FakeBroker, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDBROKER_ADDRESS", broker.address)
    monkeypatch.setenv("CREDBROKER_CA_FILE", str(ca_file))
    monkeypatch.setenv("CREDBROKER_TOKEN", DEFAULT_TOKEN)
    broker.scopes["reports-db"] = FakeScope(data={"username": "u"})
    broker.scopes["deploy"] = FakeScope(renewable=True)
    used: list[dict[str, object]] = []
    connect: Callable[..., None] = lambda **credential: used.append(credential)  # noqa: E731 - what the reader brings
    with credbroker.Client() as client:
        names: dict[str, Any] = {"client": client, "connect": connect, "batches": range(3), "timedelta": timedelta}
        code = compile(example, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        waiting = eval(code, names)
        if waiting is not None:
            asyncio.run(waiting)
    assert all(credential.keys() == {"username", "password"} for credential in used)
    assert broker.count("IssueCredential") == broker.count("CompleteTask") == 1
    assert broker.live() == []


def test_every_argument_and_every_error_is_told(make_client: MakeClient) -> None:
    text = README.read_text()
    for name in credbroker.__all__:
        kind = getattr(credbroker, name)
        told = isinstance(kind, type) and issubclass(kind, credbroker.Error) and "handled" not in (kind.__doc__ or "")
        if told and kind not in (credbroker.AlreadyExists, credbroker.RequestIdReused):
            assert f"`{name}`" in text or f"`credbroker.{name}`" in text, name

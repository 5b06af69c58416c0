"""A minted Vault token does what its rules say, and nothing else."""

import hvac
import hvac.exceptions
import pytest

from broker.mint.retract import retract
from broker.mint.vault import VaultClient
from tests.contract.mint.examples import EXAMPLES, Example, World

TOKENS = [example for example in EXAMPLES if example.kind == "vault_token"]

FORBIDDEN: tuple[tuple[str, str, dict[str, object] | None], ...] = (
    ("GET", "secret/data/other/config", None),
    ("POST", "secret/data/app/config", {"data": {"value": "changed"}}),
    ("DELETE", "secret/data/app/config", None),
    ("LIST", "secret/metadata/app", None),
    ("POST", "auth/token/create", {"policies": ["root"]}),
    ("POST", "auth/token/create", {"type": "batch"}),
    ("POST", "auth/token/create-orphan", {}),
    ("GET", "auth/token/lookup-self", None),
    ("POST", "auth/token/renew-self", {}),
    ("POST", "auth/token/revoke-self", {}),
    ("GET", "sys/policies/acl/credbroker-anchor", None),
    ("GET", "sys/mounts", None),
    ("POST", "sys/seal", {}),
    ("GET", "cubbyhole/x", None),
)


@pytest.fixture(params=TOKENS, ids=lambda example: example.name)
def example(request: pytest.FixtureRequest) -> Example:
    chosen: Example = request.param
    return chosen


@pytest.mark.parametrize(("method", "path", "body"), FORBIDDEN, ids=[f"{row[0]} {row[1]}" for row in FORBIDDEN])
async def test_everything_else_is_refused(world: World, method: str, path: str, body: dict[str, object] | None) -> None:
    agent = world.as_agent((await world.mint(await world.anchor())).secret.reveal())
    with pytest.raises(hvac.exceptions.Forbidden):
        agent.adapter.request(method, f"/v1/{path}", json=body)


async def test_many_children_die_in_one_call(world: World, vault: VaultClient) -> None:
    anchor = await world.anchor()
    # Each service token is a few writes to Vault's storage, made and unmade; a batch token is none.
    minted = [await world.mint(anchor) for _ in range(20 if world.individual else 200)]
    assert await world.works(minted[-1])
    assert await retract(vault, anchor.accessor, None)
    assert not any([await world.works(one) for one in minted])


async def test_a_batch_token_has_no_accessor_and_is_not_renewable(world: World) -> None:
    minted = await world.mint(await world.anchor())
    assert (minted.accessor is None) == (world.example.name == "batch token")
    assert minted.renewable == (world.example.name == "service token")

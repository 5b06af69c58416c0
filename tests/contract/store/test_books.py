"""What Vault lists against what the records call alive."""

from sqlalchemy import Connection

from broker.model import IssuanceState, Task
from broker.store import Store, anchors, issuances, revocations
from broker.store.books import compare
from tests.fixtures.records import NOW, a_revocation, an_anchor, an_issuance


async def test_each_side_is_told_what_the_other_lacks(store: Store, task: Task) -> None:
    known, lost, gone = (an_anchor(task) for _ in range(3))
    with_token, without, minting, ended = (
        an_issuance(known, **changes)
        for changes in (
            {"accessor": "held"},
            {"accessor": None},
            {"accessor": "held-and-lost", "state": IssuanceState.MINTING},
            {"accessor": "ended", "state": IssuanceState.REVOKED},
        )
    )
    pending, done = a_revocation(task), a_revocation(task, confirmed_at=NOW)

    def fill(conn: Connection) -> None:
        anchors.insert(conn, known, lost, gone)
        anchors.note_gone(conn, [gone.id])
        for issuance in (with_token, without, minting, ended):
            issuances.insert(conn, issuance)
        revocations.insert_all(conn, [pending, done])

    await store.write(fill)
    listed = {str(known.accessor), "held", pending.accessor}
    unrecorded = {str(gone.accessor), "ended", done.accessor, "a stranger's"}

    found = await store.read(lambda conn: compare(conn, frozenset(listed | unrecorded)))

    assert found.anchors == {lost.accessor: lost.id}
    assert found.issuances == {"held-and-lost": minting.id}
    assert found.unrecorded == unrecorded


async def test_any_number_of_records_is_read(store: Store, task: Task) -> None:
    many = [an_anchor(task) for _ in range(2_500)]

    def fill(conn: Connection) -> None:
        anchors.insert(conn, *many)

    await store.write(fill)
    every_second = frozenset(str(anchor.accessor) for anchor in many[::2])

    found = await store.read(lambda conn: compare(conn, every_second))

    assert found.anchors == {anchor.accessor: anchor.id for anchor in many[1::2]}
    assert not found.unrecorded

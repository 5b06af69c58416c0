"""What takes back has room of its own, and all lanes together leave room before them."""

import pytest

from broker import config
from broker.errors import Overloaded
from broker.serve.access import access_table
from broker.serve.fairness import FairQueue
from broker.serve.lanes import Lane, Lanes, lane_of


def test_taking_back_and_stopping_have_lanes_of_their_own() -> None:
    table = access_table(reflection=True)
    assert {method.rpartition("/")[2] for method in table if lane_of(method) is Lane.TAKE_BACK} == {
        "CompleteTask",
        "RevokeCredential",
    }
    assert "CreateLock" in {method.rpartition("/")[2] for method in table if lane_of(method) is Lane.STOP}
    lanes = Lanes(config.Limits())
    assert len({id(lanes[lane]) for lane in Lane}) == len(Lane)


@pytest.mark.parametrize("room", [16, 100, 512, 100_000])
@pytest.mark.parametrize("running", [1, 32, 10_000])
async def test_full_lanes_leave_room_at_the_gate(room: int, running: int) -> None:
    lanes = Lanes(config.Limits(max_concurrent_requests=room, max_running=running, max_waiting_per_identity=1))
    inside = 0
    for lane in Lane:
        inside += await fill(lanes[lane])
    assert 3 <= inside <= room * 9 // 10


async def fill(queue: FairQueue) -> int:
    """Let as many in as there is room for, each of another identity; return how many."""
    count = 0
    while True:
        try:
            place = queue.admit(str(count))
        except Overloaded:
            return count
        count += 1
        if queue.running < queue._most_running:
            await place.wait_for_turn()

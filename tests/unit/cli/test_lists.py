from collections.abc import Callable, Iterable

import pytest
from credbroker.v1.lock_pb2 import Lock

from broker.cli.failures import Failure
from broker.cli.lists import PAGE_SIZE, full_id, pages, show_list
from broker.cli.output import Format
from broker.cli.table import Column

Fetch = Callable[[int, str], tuple[Iterable[Lock], str]]


def numbered(count: int, asked: list[tuple[int, str]] | None = None) -> Fetch:
    """Pages of locks named by their number, as a server cuts them."""

    def fetch(size: int, token: str) -> tuple[Iterable[Lock], str]:
        if asked is not None:
            asked.append((size, token))
        start = int(token or 0)
        end = min(start + size, count)
        return [Lock(id=f"{number:036d}") for number in range(start, end)], str(end) if end < count else ""

    return fetch


def test_pages_are_followed_to_the_end() -> None:
    asked: list[tuple[int, str]] = []
    assert len(list(pages(numbered(450, asked)))) == 450
    assert asked == [(PAGE_SIZE, ""), (PAGE_SIZE, "200"), (PAGE_SIZE, "400")]


def test_no_more_is_asked_for_than_wanted() -> None:
    asked: list[tuple[int, str]] = []
    assert len(list(pages(numbered(450, asked), 250))) == 250
    assert asked == [(200, ""), (50, "200")]


def test_an_empty_page_in_the_middle_does_not_end_the_list() -> None:
    replies = {"": ([], "a"), "a": ([Lock(id="1")], "")}
    assert [lock.id for lock in pages(lambda size, token: replies[token])] == ["1"]


@pytest.mark.parametrize(("count", "told"), [(3, False), (4, True)])
def test_a_cut_list_says_so(count: int, told: bool, capsys: pytest.CaptureFixture[str]) -> None:
    columns: tuple[Column[Lock], ...] = (Column("LOCK", lambda lock: lock.id),)
    show_list(numbered(count), columns, Format.TABLE, limit=3, wide=False, empty="none")
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1 + 3
    assert ("only the first 3 are shown" in captured.err) is told


def test_json_lines_are_written_while_pages_arrive(capsys: pytest.CaptureFixture[str]) -> None:
    def fetch(size: int, token: str) -> tuple[Iterable[Lock], str]:
        if token:
            assert '"id":"1"' in capsys.readouterr().out
            return [], ""
        return [Lock(id="1")], "more"

    show_list(fetch, (), Format.JSONL, limit=0, wide=False, empty="none")


def test_a_whole_identifier_is_not_looked_up() -> None:
    def fetch(size: int, token: str) -> tuple[Iterable[Lock], str]:
        raise AssertionError("asked although nothing had to be found")

    identifier = "0190A5B2-0000-7000-8000-00000000000A"
    assert full_id(identifier, "lock", fetch) == identifier.lower()


@pytest.mark.parametrize("text", ["…0000042", "0000042"])
def test_the_end_of_an_identifier_finds_it(text: str) -> None:
    assert full_id(text, "lock", numbered(100)) == f"{42:036d}"


def test_an_ambiguous_end_names_the_candidates() -> None:
    with pytest.raises(Failure, match="several locks end in '42'") as caught:
        full_id("42", "lock", numbered(300))
    assert caught.value.details == (f"{42:036d}", f"{142:036d}", f"{242:036d}")


@pytest.mark.parametrize("text", ["", "…", "ffff"])
def test_an_end_that_nothing_has(text: str) -> None:
    with pytest.raises(Failure, match="no lock among the newest"):
        full_id(text, "lock", numbered(3))

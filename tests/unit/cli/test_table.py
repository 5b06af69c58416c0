from credbroker.v1.scope_pb2 import Scope
from rich.cells import cell_len

from broker.cli.table import Column, render

COLUMNS: tuple[Column[Scope], ...] = (
    Column("NAME", lambda scope: scope.name, full=lambda scope: f"full {scope.name}"),
    Column("DESCRIPTION", lambda scope: scope.description, flexible=True),
    Column("BY", lambda scope: scope.creator, flexible=True),
    Column("ETAG", lambda scope: scope.etag, only_wide=True),
)


def lines(*rows: Scope, wide: bool = False, width: int = 80) -> list[str]:
    return [line.plain for line in render(rows, COLUMNS, wide=wide, width=width)]


def test_columns_are_aligned_and_empty_values_marked() -> None:
    assert lines(Scope(name="a", description="first", creator="x"), Scope(name="longer")) == [
        "NAME    DESCRIPTION  BY",
        "a       first        x",
        "longer  -            -",
    ]


def test_long_values_are_cut_to_the_width_and_others_are_not() -> None:
    shown = lines(Scope(name="reports-secret", description="d" * 100, creator="c" * 30), width=60)
    assert max(cell_len(line) for line in shown) == 60
    assert "reports-secret" in shown[1]
    assert shown[1].count("…") == 2


def test_wide_shows_everything_uncut() -> None:
    shown = lines(Scope(name="a", description="d" * 100, etag="e1"), wide=True, width=60)
    assert "full a" in shown[1]
    assert "d" * 100 in shown[1]
    assert shown[1].endswith("e1")


def test_control_characters_of_the_server_do_not_reach_the_terminal() -> None:
    shown = lines(Scope(name="a\x1b[2J", description="two\nlines\u202e"), width=120)
    assert shown[1].startswith(r"a\x1b[2J  two\nlines\u202e")
    assert len(shown) == 2


def test_wide_characters_count_as_two_cells() -> None:
    shown = lines(Scope(name="東京", description="x"), Scope(name="abcd", description="y"))
    assert cell_len(shown[1].partition("x")[0]) == cell_len(shown[2].partition("y")[0])


def test_columns_that_cannot_shrink_any_more_overflow() -> None:
    shown = lines(Scope(name="n" * 40, description="d" * 20, creator="c" * 20), width=10)
    assert "n" * 40 in shown[1]


def test_what_is_cut_keeps_the_end_where_that_matters() -> None:
    column: Column[Scope] = Column("AGENT", lambda scope: scope.creator, flexible=True, keep_end=True)
    (_, shown) = render([Scope(creator="…/agents/quarterly/reports")], [column], wide=False, width=10)
    assert shown.plain == "…y/reports"

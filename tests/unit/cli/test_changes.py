import pytest

from broker.cli.changes import ScopeChange, diff, real, render_change, summary, to_value


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("a\nb\n", "a\nb\n", []),
        ("", "a\nb\n", ["+a", "+b"]),
        ("a\nb\n", "", ["-a", "-b"]),
        ("a\nb\n", "a\nc\n", ["@@ -1,2 +1,2 @@", " a", "-b", "+c"]),
        ("a\n", "a\r\n", ["@@ -1 +1 @@", "-a", "+a\r"]),
        ("a\n", "a", ["@@ -1 +1,2 @@", " a", "+\\ no line feed at the end"]),
        ("a\x0bb\n", "a\nb\n", ["@@ -1 +1,2 @@", "-a\x0bb", "+a", "+b"]),
    ],
)
def test_differences(before: str, after: str, expected: list[str]) -> None:
    assert diff(before, after) == expected


def test_a_change_is_shown_with_its_difference_escaped_and_coloured() -> None:
    shown = render_change(ScopeChange("update", "a\x1b", "x\n", "y\x1b\n", "e"), "broker")
    assert shown.plain == "~ update scope a\\x1b  (broker)\n    @@ -1 +1 @@\n    -x\n    +y\\x1b"
    assert [str(span.style) for span in shown.spans][-3:] == ["cyan", "red", "green"]


def test_only_real_changes_count() -> None:
    changes = [
        ScopeChange("create", "a", "", "x", ""),
        ScopeChange("none", "b", "x", "x", "e"),
        ScopeChange("delete", "c", "x", "", "e"),
        ScopeChange("delete", "d", "x", "", "e"),
    ]
    assert [change.name for change in real(changes)] == ["a", "c", "d"]
    assert summary(changes) == "1 to be created, 2 to be deleted"
    assert to_value(changes[0], "broker") == {
        "where": "broker",
        "action": "create",
        "kind": "scope",
        "name": "a",
        "diff": "+x\n+\\ no line feed at the end",
    }

"""What the stage offers; a change here is a change of its interface."""

from broker import authorize


def test_exported_names() -> None:
    assert authorize.__all__ == [
        "Ask",
        "CompiledScope",
        "Explanation",
        "Grant",
        "RoleRules",
        "Step",
        "TaskView",
        "check_declared",
        "check_pattern",
        "compile_scope",
        "decide",
        "explain",
        "hold",
        "matches_agent",
    ]
    assert all(hasattr(authorize, name) for name in authorize.__all__)

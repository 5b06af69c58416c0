"""May this identity have this scope, for this task, with these parameters?

Pure: no I/O, no clock, no state. Scopes are compiled once per version; what
cannot be compiled cannot be stored.
"""

from broker.authorize.decision import check_declared, decide, explain
from broker.authorize.locks import hold
from broker.authorize.patterns import check_pattern, matches_agent
from broker.authorize.records import Ask, Explanation, Grant, Step, TaskView
from broker.authorize.roles import RoleRules
from broker.authorize.scope import CompiledScope, compile_scope

__all__ = [
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

from datetime import timedelta

import pytest
import typer
from credbroker.v1.task_pb2 import TaskState

from broker.cli.inputs import duration_option, enum_option, labels_option, moment_option, pairs_option


def test_text_and_json_values() -> None:
    found = pairs_option(["role=reader", "limit:=5", 'groups:=["a", "b"]', "eq=a=b", "empty=", "n:=null"], "--param")
    assert found == {"role": "reader", "limit": 5, "groups": ["a", "b"], "eq": "a=b", "empty": "", "n": None}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["role"], "must be name=text or name:=json"),
        (["=reader"], "must be name=text or name:=json"),
        ([":=1"], "must be name=text or name:=json"),
        (["a:=nonsense"], "the value of 'a' is not JSON"),
        (["a=1", "a:=2"], "'a' is given twice"),
    ],
)
def test_wrong_pairs(texts: list[str], message: str) -> None:
    with pytest.raises(typer.BadParameter, match=message):
        pairs_option(texts, "--param")


def test_labels_are_text_whatever_they_look_like() -> None:
    assert labels_option(["a=1", "b:=2"], "--label") == {"a": "1", "b:": "2"}


@pytest.mark.parametrize("texts", [["a"], ["=1"], ["a=1", "a=2"]])
def test_wrong_labels(texts: list[str]) -> None:
    with pytest.raises(typer.BadParameter, match="must be name=text, each name once"):
        labels_option(texts, "--label")


@pytest.mark.parametrize("text", ["active", "ACTIVE", "Active"])
def test_states_in_any_case(text: str) -> None:
    assert enum_option(text, TaskState.DESCRIPTOR, "--state") == "ACTIVE"


def test_states_may_be_written_with_dashes() -> None:
    assert enum_option("deadline-exceeded", TaskState.DESCRIPTOR, "--state") == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("text", ["", "unspecified", "gone", "TASK_STATE_ACTIVE"])
def test_an_unknown_state_says_which_there_are(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="must be one of active, completed, deadline_exceeded"):
        enum_option(text, TaskState.DESCRIPTOR, "--state")


def test_options_that_are_not_given() -> None:
    assert enum_option(None, TaskState.DESCRIPTOR, "--state") is None
    assert moment_option(None, "--since") is None


def test_times_that_cannot_be_read() -> None:
    assert duration_option("2h", "--ttl") == timedelta(hours=2)
    with pytest.raises(typer.BadParameter, match="must be a duration such as"):
        duration_option("soon", "--ttl")
    with pytest.raises(typer.BadParameter, match="must be a duration ago such as"):
        moment_option("yesterday", "--since")

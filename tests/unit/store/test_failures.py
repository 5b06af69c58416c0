"""What database errors turn into."""

import sqlite3

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from broker.errors import InvalidArgument, StoreUnavailable, TaskEnded
from broker.secret import Secret
from broker.store.failures import CommitFailedError, Conflict, TransactionLostError, may_pass, translate


def caught(url: Secret[str], *statements: str) -> DBAPIError:
    engine = create_engine(url.reveal(), hide_parameters=True)
    try:
        with engine.connect() as conn:
            for statement in statements[:-1]:
                conn.execute(text(statement))
            with pytest.raises(DBAPIError) as raised:
                conn.execute(text(statements[-1]))
        return raised.value
    finally:
        engine.dispose()


def test_other_exceptions_pass_as_they_are() -> None:
    for error in (TaskEnded("x"), ValueError("x"), KeyError("x")):
        assert translate(error) is error


def test_what_a_column_refused_comes_out_of_its_wrapping() -> None:
    inner = InvalidArgument("no UUID")
    assert translate(StatementError("x", "SELECT 1", {}, inner)) is inner
    bare = StatementError("x", "SELECT 1", {}, None)
    assert translate(bare) is bare


@pytest.mark.parametrize("error", [PoolTimeout("x"), TransactionLostError(), CommitFailedError()])
def test_trouble_with_transactions_means_unavailable(error: Exception) -> None:
    assert isinstance(translate(error), StoreUnavailable)


def test_an_unknown_outcome_names_its_cause() -> None:
    failure = CommitFailedError()
    failure.__cause__ = OperationalError("COMMIT", {}, sqlite3.OperationalError("disk I/O error"))
    assert "disk I/O error" in str(translate(failure))


def test_values_of_rows_and_statements_are_not_repeated(postgres_url: Secret[str]) -> None:
    taken = caught(
        postgres_url,
        "INSERT INTO proofs VALUES ('hunter2', 0)",
        "INSERT INTO proofs VALUES ('hunter2', 0)",
    )
    assert "hunter2" in str(taken.orig)
    known = translate(taken)
    assert isinstance(known, Conflict)
    assert str(known) == "UniqueViolation 23505 pk_proofs"

    no_number = translate(caught(postgres_url, "SELECT 'hunter2'::int"))
    assert isinstance(no_number, InvalidArgument)
    assert "hunter2" not in str(no_number)

    no_table = translate(caught(postgres_url, "SELECT 1 FROM hunter2"))
    assert isinstance(no_table, StoreUnavailable)
    assert str(no_table) == "UndefinedTable 42P01"


def test_what_the_server_says_of_itself_is_kept(postgres_url: Secret[str]) -> None:
    cut_short = translate(caught(postgres_url, "SET statement_timeout = 10", "SELECT pg_sleep(10)"))
    assert isinstance(cut_short, StoreUnavailable)
    assert str(cut_short) == "QueryCanceled 57014: canceling statement due to statement timeout"


def test_sqlite_says_which_constraint_without_values(sqlite_url: Secret[str]) -> None:
    taken = caught(
        sqlite_url,
        "INSERT INTO proofs VALUES ('hunter2', 0)",
        "INSERT INTO proofs VALUES ('hunter2', 0)",
    )
    known = translate(taken)
    assert isinstance(known, Conflict)
    assert str(known) == "IntegrityError: UNIQUE constraint failed: proofs.digest"


def test_unknown_drivers_errors_are_named_only() -> None:
    assert str(translate(OperationalError("SELECT 1", {}, OSError("hunter2")))) == "OSError"


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (psycopg.errors.DeadlockDetected(), True),
        (psycopg.errors.SerializationFailure(), True),
        (psycopg.errors.LockNotAvailable(), False),
        (psycopg.errors.QueryCanceled(), False),
        (psycopg.errors.UndefinedTable(), False),
        (psycopg.OperationalError(), False),
        (sqlite3.OperationalError(), False),
    ],
)
def test_only_what_others_did_meanwhile_is_worth_repeating(error: Exception, passes: bool) -> None:
    assert may_pass(OperationalError("SELECT 1", {}, error)) is passes
    assert not may_pass(error)
    assert not may_pass(None)

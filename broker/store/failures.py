"""What a database's errors mean to the broker, without the values they carry."""

from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from broker.errors import InvalidArgument, StoreUnavailable

# Classes of SQLSTATE whose messages name no values of a row or statement.
_HARMLESS: Final = frozenset({"08", "25", "28", "3D", "40", "53", "55", "57", "58", "XX"})


class TransactionLostError(Exception):
    """The database ended a transaction on its own."""


class CommitFailedError(Exception):
    """COMMIT was sent and did not succeed: nobody knows what became of it."""


class Conflict(RuntimeError):
    """A row contradicts a constraint of the tables, alone in its transaction and twice.

    A mistake of the broker's own code: what can happen is checked for before.
    """


def translate(error: BaseException) -> BaseException:
    """Return the broker's own error for what went wrong in a transaction.

    What a work raised itself comes back as it is.
    """
    if isinstance(error, TransactionLostError):
        return StoreUnavailable("the database ended the transaction")
    if isinstance(error, CommitFailedError):
        cause = error.__cause__
        detail = _describe(cause.orig) if isinstance(cause, DBAPIError) else type(cause).__name__
        return StoreUnavailable(f"the outcome of COMMIT is not known: {detail}")
    if isinstance(error, PoolTimeout):
        return StoreUnavailable("all connections to the database are busy")
    if not isinstance(error, StatementError):
        return error
    if not isinstance(error, DBAPIError):
        # Raised while a value was prepared for the database.
        return error.orig if error.orig is not None else error
    detail = _describe(error.orig)
    if isinstance(error, IntegrityError):
        return Conflict(detail)
    if isinstance(error, DataError):
        return InvalidArgument(f"the database refused a value: {detail}")
    return StoreUnavailable(detail)


def is_disconnect(error: BaseException) -> bool:
    """Say whether the connection was lost, so that a new one may do better."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def may_pass(error: BaseException | None) -> bool:
    """Say whether doing it again may go well: deadlocks, and rows that somebody else added meanwhile."""
    if isinstance(error, IntegrityError):
        return True
    state = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
    return isinstance(state, str) and state.startswith("40")


def _describe(error: BaseException | None) -> str:
    name = type(error).__name__
    # By name: neither database has need of the other's driver.
    if type(error).__module__ == "sqlite3":
        return f"{name}: {error}"
    import psycopg

    if not isinstance(error, psycopg.Error):
        return name
    state = error.sqlstate
    if state is None:
        return f"{name}: {str(error).strip().partition(chr(10))[0]}"
    if state[:2] in _HARMLESS:
        return f"{name} {state}: {error.diag.message_primary}"
    where = error.diag.constraint_name or error.diag.column_name or ""
    return f"{name} {state} {where}".rstrip()

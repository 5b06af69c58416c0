"""One-time evidence that was consumed."""

from datetime import datetime

from sqlalchemy import Connection, bindparam, delete

from broker.model import Proof
from broker.store import schema
from broker.store.rows import InsertUnlessKnown

_CONSUME = InsertUnlessKnown(schema.proofs, "digest")
_PURGE = delete(schema.proofs).where(schema.proofs.c.expires_at <= bindparam("now_"))


def consume(conn: Connection, proof: Proof) -> bool:
    """Use a proof up; False when it was used before, by any replica."""
    return _CONSUME(conn, {"digest": proof.digest, "expires_at": proof.expires_at})


def purge(conn: Connection, now: datetime) -> int:
    """Forget proofs whose evidence has expired, and return how many."""
    return conn.execute(_PURGE, {"now_": now}).rowcount

"""The name of this broker's installation: what its tokens in Vault are marked with."""

from sqlalchemy import Connection, select

from broker.store.schema import installation

_GET = select(installation.c.id)


def installation_id(conn: Connection) -> str:
    """Return the identifier that was made with this database."""
    return str(conn.execute(_GET).scalar_one())

"""The store: what the broker knows, durable and shared by its replicas.

`Store` runs works; the modules beside it hold the functions that works call,
one module per table.
"""

from broker.store.store import Store
from broker.store.writer import Work, each

__all__ = ["Store", "Work", "each"]

"""The audit stage: what is recorded, and in which form.

Pure: events are built here and stored by the workflows, in the same
transaction as the change that they record.
"""

from broker.audit.call import BROKER, Call, broker_event

__all__ = ["BROKER", "Call", "broker_event"]

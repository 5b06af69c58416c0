"""The broker: exchanges attested identities for task-scoped credentials."""

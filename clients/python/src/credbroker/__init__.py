"""Short-lived credentials for the task at hand."""

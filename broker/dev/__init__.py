"""The embedded development stack: real servers on loopback, the broker among them. Not for production."""

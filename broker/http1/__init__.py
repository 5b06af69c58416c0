"""HTTP/1.1 as a client, on connections of our own: one exchange after the other, nothing more."""

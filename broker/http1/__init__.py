"""HTTP/1.1 as a client, on connections of our own: replies, one exchange after the other, a pool."""

"""Between the contract's messages and the broker's records.

What comes in is checked for shape here, completely, and every violation is
reported at once with its path in the request. What goes out is only written.
"""

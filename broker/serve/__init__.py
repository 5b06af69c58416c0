"""The gRPC layer: two listeners, one interceptor, thin servicers.

Everything that crosses the network is judged here and nowhere else: who may
call what (`access`, `interceptor`), whether a request is well-formed
(`convert`), and what a caller is told when it is refused (`errors`).
"""

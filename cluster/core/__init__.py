"""The pure core: records, wire format, columns and the state machines.

Nothing here reads a clock, a file, a socket or the environment; every value comes in as an argument, so that each ordering of events is
a plain synchronous test. It may import numpy, msgpack, msgspec, pydantic and the standard library's data modules, and nothing of ours.
"""

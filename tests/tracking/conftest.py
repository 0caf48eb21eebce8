"""Fixtures of the tracking tests."""

from tests.tracking.stores import _cold_store, _own_environment, server, store

__all__ = ["_cold_store", "_own_environment", "server", "store"]

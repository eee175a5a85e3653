"""Clusters serve a system of real processes, as the end-to-end tests start it."""

from tests.e2e.conftest import system

__all__ = ["system"]

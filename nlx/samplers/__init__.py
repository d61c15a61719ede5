"""Samplers: pure functions of a key and of distribution parameters."""

from nlx.samplers import concrete, gaussian

__all__ = ["concrete", "gaussian"]

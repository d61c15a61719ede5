"""Samplers: pure functions of a key and of distribution parameters."""

from nlx.samplers import concrete, gaussian, gibbs

__all__ = ["concrete", "gaussian", "gibbs"]

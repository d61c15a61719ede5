"""Data sets, one file per place that they come from; each gives a :class:`nlx.data.Dataset`.

Imports nlx.data's checks and files, and primitives.
"""

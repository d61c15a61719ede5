"""Subcommands of ``nlx`` beside ``clean``: dataclasses of their options, each with a ``run``.

Imports experiment, report, cleaning, data.
"""

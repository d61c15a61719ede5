"""Everything around a trainer that makes an experiment of it: options, a run folder, console, log, export, seeds.

Recipes and the command line import from here; nothing below does.
"""

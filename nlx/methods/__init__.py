"""The systems and the baselines, a file each; ``method.py`` is the one contract.

Imports primitives only.
"""

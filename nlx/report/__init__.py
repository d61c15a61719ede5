"""Pictures and the page that a run leaves.

Imports the table of labels, data, and primitives; no method.
"""

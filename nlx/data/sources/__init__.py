"""Data sets, one file per place that they come from; each gives a :class:`nlx.data.Dataset`.

:func:`nlx.data.load` chooses among them by name. Imports what nlx.data checks, decodes, caches and adds noise with.
"""

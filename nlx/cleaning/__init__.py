"""From a posterior to a list to act on: the table of labels, probabilities out of fold, and the doors that use them.

May import training and what lies below it.
"""

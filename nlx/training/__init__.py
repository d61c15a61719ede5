"""Training as objects: a trainer, its state, stages, observers, checkpoints.

Nothing here reads options, prints, or touches a signal. May import methods, models, data and primitives.
"""

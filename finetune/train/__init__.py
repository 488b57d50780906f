"""Training: stages, one epoch, optimiser groups and schedule; everything reported as events."""

"""Figures of a network's outputs, with what is known of their uncertainty."""

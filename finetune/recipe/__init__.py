"""Recipes: data that says what a run does, checked whole before anything else happens."""

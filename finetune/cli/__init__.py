"""The command line: one file per command, `render.py` for all that a terminal shows.

Importing a file of this package costs typer and nothing heavier: whatever loads pydantic, numpy or
torch is imported inside the function that needs it, so that `--help` answers at once.
"""

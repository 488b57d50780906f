"""The machine: files written whole, the run folder, seeds, device and precision."""

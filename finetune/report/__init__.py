"""Results as files: tables and figures that other tools read."""

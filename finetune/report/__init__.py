"""Results as files: tables that other tools read, and a page for a person."""

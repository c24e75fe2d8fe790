"""The `aqaa` command line."""

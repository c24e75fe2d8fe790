"""The wire protocol: typed events and the session machine. No I/O here."""

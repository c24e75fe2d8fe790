"""Sound as bytes: formats of the wire, and sound files."""

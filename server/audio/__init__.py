"""Sound as bytes: the wire's formats, and files."""

"""One answer: from a prompt to text and sound."""

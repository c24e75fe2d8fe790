"""Asks a bundle the held-out questions by voice and judges what it answers."""

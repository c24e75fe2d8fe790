"""Trains Step-Omni nano: the text pieces, the examples, the model and the loop."""

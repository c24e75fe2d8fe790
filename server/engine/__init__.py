"""Step-Omni engines behind one contract: prompt tokens in, a stream of tokens out."""

"""Where models compute: one place for all model work that is not vLLM's."""

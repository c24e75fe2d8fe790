"""The decoder in vLLM: in this process, or elsewhere over HTTP."""

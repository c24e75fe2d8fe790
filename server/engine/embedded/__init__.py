"""The decoder in this process, in PyTorch: for CPUs and small checkpoints."""

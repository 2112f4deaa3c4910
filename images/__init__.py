"""Image files -> tensors."""

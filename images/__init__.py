"""Image files -> tensors: find, decode, transform, cache, shards, order of batches."""

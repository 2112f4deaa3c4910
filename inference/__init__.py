"""What the label distribution says of an image; checkpoints."""

"""How the default set's pictures are drawn."""

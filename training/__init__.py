"""What train.py needs around its loop: data, setup, state, resume."""

"""Shared by all scripts: errors, flags, logging, devices, files, processes."""

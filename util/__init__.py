"""What every script shares: errors, flags, logging, devices, files, processes."""

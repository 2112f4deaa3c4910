"""The server of serve.py: pictures come by HTTP, labels go back as JSON."""

"""annotate.py's page: photos are labelled in a browser on this machine."""

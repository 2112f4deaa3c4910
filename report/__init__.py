"""Text tables, pictures and pages for people."""

"""Results for people to read: text tables, pictures and HTML pages."""

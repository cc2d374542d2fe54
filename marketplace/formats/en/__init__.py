"""In English, the only language here."""

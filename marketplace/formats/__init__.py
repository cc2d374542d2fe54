"""How pages write what Django would write its own way."""

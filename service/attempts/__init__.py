"""An attempt seen from the server: what it is given, and what it left."""

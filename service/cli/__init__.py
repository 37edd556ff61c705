"""The command line, ``prunus``."""

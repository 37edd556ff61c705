"""``make demo``: ``python -m prunus.service.cli.demo``; see ``run``."""

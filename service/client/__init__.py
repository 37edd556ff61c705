"""What programs use: ``from prunus.service.client import Client``."""

from prunus.service.client.client import Client

__all__ = ["Client"]

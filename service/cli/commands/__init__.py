"""One function per command: each turns words into calls and answers into output. ``service.cli.main`` names them."""

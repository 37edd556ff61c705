"""``python -m prunus.service.cli`` is ``prunus``."""

from prunus.service.cli.main import main

main()

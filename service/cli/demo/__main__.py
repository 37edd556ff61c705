"""``python -m prunus.service.cli.demo`` runs the demo."""

import sys

from prunus.service.cli.demo.run import main

sys.exit(main())

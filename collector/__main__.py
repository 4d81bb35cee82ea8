"""``python -m collector`` is the program ``podtally``."""

import sys

from collector.cli import main

sys.exit(main())

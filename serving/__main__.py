"""``python -m serving`` starts the server."""

import sys

from serving.server import main

sys.exit(main())

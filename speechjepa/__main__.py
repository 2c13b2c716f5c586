"""`python -m speechjepa` is the same command as `speechjepa`."""

from __future__ import annotations

import sys

from speechjepa.cli.main import main

sys.exit(main())

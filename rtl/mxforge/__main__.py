"""``python -m mxforge``."""
import sys

from .cli import main

sys.exit(main())

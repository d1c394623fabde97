"""What is taken when nothing is told; without imports, so that the command line can name it at once."""

from __future__ import annotations

ENCODER = "la3"
PIXELS = "pixels1"
BACKEND = "auto"

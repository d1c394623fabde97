"""Networks, one per file; shape contracts stand on ``forward``."""

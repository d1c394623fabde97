"""The jobs that fit weights; installed as ``geomatch.training``."""

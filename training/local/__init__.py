"""The jobs that fit local descriptors, detectors, detect-and-describe networks and patch classifiers."""

"""Models of anomalib as detectors of this suite, and detectors of this suite inside anomalib's Engine."""

"""The detectors, one file per family; `anomaly.catalog` finds them by name."""

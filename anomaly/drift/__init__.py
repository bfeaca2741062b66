"""Is the present input still what was learned? Descriptors, a reference, sequential tests, charts, report."""

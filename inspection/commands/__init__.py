"""The commands `anomaly inspect ...`, one file for each."""

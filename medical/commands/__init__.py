"""The commands `anomaly triage ...`, one file for each."""

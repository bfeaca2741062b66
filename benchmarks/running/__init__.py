"""`anomaly bench run`: every detector and peer on every set, measured once."""

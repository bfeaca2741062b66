"""Privacy: encryption, logs without patient data, audit trail, de-identification."""

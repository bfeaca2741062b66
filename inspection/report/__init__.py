"""Pages for people, each one file that opens without a network: the report of a run, the review of its parts."""

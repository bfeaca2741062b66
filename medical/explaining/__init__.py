"""Why studies were flagged: the explanations of `explain`, shown by the rules of this frontend; see docs/triage.md."""

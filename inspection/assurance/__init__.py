"""How far the inspection itself can be trusted: repeatability, agreement, and charts that watch it over time."""

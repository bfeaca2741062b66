"""What people say of parts after the inspection, and what follows: rates, thresholds, normals for a refit."""

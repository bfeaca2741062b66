"""Models on the line: exports that carry the whole path from raw frame to decision, and the light runtime for them.

Importing this package, and scoring with it, needs numpy and the one runtime that runs the model; PyTorch is needed for
exports and for model files of the suite itself only.
"""

from anomaly.deploy.manifest import DECISIONS, Frame, Manifest
from anomaly.deploy.runtime import Runtime, Scores, load

__all__ = ["DECISIONS", "Frame", "Manifest", "Runtime", "Scores", "load"]

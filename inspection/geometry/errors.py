"""What can be wrong with the place of a part."""

from anomaly.errors import AnomalyError


class NotRegisteredError(AnomalyError):
    """A part could not be laid over the golden image within the limits."""

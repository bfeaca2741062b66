"""The PACS service: objects in by C-STORE, DICOMweb or a folder, a durable queue, results out and verified."""

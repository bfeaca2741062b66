"""Radiology: DICOM in, a triage worklist and standard DICOM results out. Research use, not a medical device."""

"""Manufacturing: from camera frame to OK, REVIEW or NG, to defects in millimetres, to wafer maps and factory files."""

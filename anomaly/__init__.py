"""Learns what normal looks like from normal images alone; finds, localises and explains what is not."""

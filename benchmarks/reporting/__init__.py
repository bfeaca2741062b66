"""`anomaly bench report`: tables and pictures of runs."""

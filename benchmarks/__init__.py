"""How well and at what cost: data sets, peers, tables. Each module runs as `python -m benchmarks.NAME`."""

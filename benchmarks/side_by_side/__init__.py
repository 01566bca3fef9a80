"""llmlb beside other gateways: the same load, the same machine, in turns. `python -m benchmarks.side_by_side --help`"""

"""A load generator: one process that sends payments over kept-alive connections and says how they were answered.

`python -m benchmarks.load` reads a plan as JSON on its standard input and writes what it saw as JSON on its standard output.
It shares the machine with the server that it loads, so it does as little as it can for each request. It only ever loads
this machine, and every run has an end.
"""

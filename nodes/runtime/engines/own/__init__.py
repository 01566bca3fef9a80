"""Small servers of our own round libraries that have none: started by the node, one process a model.

Each is `python -m nodes.runtime.engines.own.<name> --model PATH --port N`, listens on loopback once its model is
loaded, and ends when the node does.
"""

"""Models that nodes are asked to fetch: how each engine is asked, and who follows a download to its end.

A download is a row (`nodes.models.Download`). A worker that finds one which nobody follows claims it, asks the node,
and writes how far it is once a second; every gateway process reads it from there. A worker that dies is replaced when
its claim runs out, and a node that restarts is asked again: what it had fetched by then is kept on its side.
"""

"""How a node can fail, in the order in which a request would meet it."""

from __future__ import annotations


class NodeFault(Exception):
    """A node failed in a way that is its own fault. The message names no address."""

    code = "node_fault"


class ConnectFault(NodeFault):
    code = "connect"


class SendFault(NodeFault):
    code = "send"


class TimeoutFault(NodeFault):
    code = "timeout"


class MalformedFault(NodeFault):
    code = "malformed"


class BrokenFault(NodeFault):
    code = "broken"

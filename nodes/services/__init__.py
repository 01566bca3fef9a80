"""What can be done to nodes: one verb a function, keyword-only; transaction, audit and event inside.

No function makes an HTTP call inside a transaction. All of them may block: call them from a thread, not from a loop.
"""

from nodes.exclusions import exclude_model_from_node, reinclude_model, take_back_exclusions
from nodes.services.downloads import cancel_download, delete_model, start_download
from nodes.services.lifecycle import (
    check_node_soon,
    delete_node,
    disable_node,
    drain_node,
    enable_node,
    forget_api,
    resume_node,
    set_capabilities,
    set_node_type,
    update_node,
)
from nodes.services.logs import NodeLogs, read_logs
from nodes.services.registration import register_node, reregister_node
from nodes.services.syncing import SyncReport, TestReport, sync_node, sync_nodes, test_node

__all__ = [
    "NodeLogs",
    "SyncReport",
    "TestReport",
    "cancel_download",
    "check_node_soon",
    "delete_model",
    "delete_node",
    "disable_node",
    "drain_node",
    "enable_node",
    "exclude_model_from_node",
    "forget_api",
    "read_logs",
    "register_node",
    "reinclude_model",
    "reregister_node",
    "resume_node",
    "set_capabilities",
    "set_node_type",
    "start_download",
    "sync_node",
    "sync_nodes",
    "take_back_exclusions",
    "test_node",
    "update_node",
]

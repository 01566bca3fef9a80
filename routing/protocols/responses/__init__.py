"""The Open Responses API (`/v1/responses`): passed through where a node serves it, else spoken for by chat.

    api      what the API is: path, ranges, how a node is asked
    native   following answers and streams of nodes that serve it themselves
    request  what the client asks → a chat request
    items    what both ways share of it: content parts, tools
    answer   a chat answer → a response
    stream   a chat stream → the events of a response
    shape    the response object and its events

https://www.openresponses.org/specification, https://platform.openai.com/docs/api-reference/responses
"""

from typing import Final

from routing.protocols.responses.api import RESPONSES, STORED, plan_stored

__all__ = ["APIS", "RESPONSES", "STORED", "plan_stored"]

APIS: Final = {RESPONSES.path: RESPONSES}

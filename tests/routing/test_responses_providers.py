"""Responses that a cloud provider keeps: for the owner who made them alone, though the account there is one for all."""

from __future__ import annotations

from asgiref.sync import sync_to_async

from access.audit import SYSTEM
from access.permissions import Permission, Role
from access.services import create_user, mint_api_key
from tests.routing.conftest import bearer
from tests.routing.provider_support import Cloud, cloud
from tests.support.fake_provider import Script

__all__ = ["cloud"]

RESPONSES = "/v1/responses"
MODEL = "openai:gpt-4o"
MADE: dict[str, object] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "gpt-4o",
    "output": [],
    "usage": None,
}


def kens_key() -> str:
    ken = create_user(username="ken", role=Role.OPERATOR, password="a long walk along the river", actor=SYSTEM)[0]
    return mint_api_key(owner=ken, name="kens", permissions=[Permission.INFERENCE], actor=SYSTEM)[1]


async def test_they_are_followed_for_their_owner_alone(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    fake.script = Script(body=MADE)
    fleet = cloud.fleet
    kens = await sync_to_async(kens_key)()
    assert (await fleet.post(RESPONSES, model=MODEL, input="hello")).json()["id"] == "resp_1"
    later = {"model": MODEL, "input": "more", "previous_response_id": "resp_1"}
    assert (await fleet.post(RESPONSES, **later)).status_code == 200
    assert fake.asked["previous_response_id"] == "resp_1"
    read = await fleet.client.get(f"{RESPONSES}/resp_1?include=x", headers=bearer(fleet.key))
    assert read.json()["model"] == MODEL
    assert (fake.seen[-1].method, fake.seen[-1].path) == ("GET", f"{RESPONSES}/resp_1")
    assert fleet.key not in str(fake.seen[-1].headers)
    asked = len(fake.seen)
    refused = await fleet.post(RESPONSES, key=kens, **later)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "previous_response_not_found")
    gone = await fleet.client.get(f"{RESPONSES}/resp_1", headers=bearer(kens))
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "response_not_found")
    assert len(fake.seen) == asked


async def test_a_response_of_a_node_is_none_of_the_providers(cloud: Cloud) -> None:
    await cloud.add("openai")
    own = {"apis": [RESPONSES], "row": {"native_apis": [RESPONSES]}}
    await cloud.fleet.add("model-a", **own)
    made = (await cloud.fleet.post(RESPONSES, input="hello")).json()["id"]
    refused = await cloud.fleet.post(RESPONSES, model=MODEL, input="more", previous_response_id=made)
    assert refused.status_code == 404

"""A node's page: its devices, what it refuses and why, its downloads, its log; and who may order what."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.test import Client

from access.audit import SYSTEM
from access.models import User
from nodes import services
from nodes.fake_node import FakeNode, running_fake_node
from nodes.models import Download, DownloadState, Node, NodeModel

SignIn = Callable[[User], Client]
pytestmark = pytest.mark.django_db


@pytest.fixture
def fake() -> Iterator[FakeNode]:
    with running_fake_node(["org/chat", "org/embed"], kind="xllm") as node:
        node.own.loaded = ["org/chat"]
        yield node


@pytest.fixture
def node(fake: FakeNode) -> Node:
    return services.register_node(name="own", base_url=fake.url, actor=SYSTEM)


def text_of(browser: Client, path: str) -> str:
    answer = browser.get(path)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def test_the_page_shows_devices_loaded_models_and_reasons(node: Node, yui: User, signed_in: SignIn) -> None:
    page = text_of(signed_in(yui), f"/nodes/{node.pk}/")
    assert "CUDA × 2" in page
    assert page.count("NVIDIA RTX 4090") == 2
    assert "6.0 GiB / 24.0 GiB" in page
    assert 'org/chat <span class="tag-state">loaded</span>' in page
    assert "org/embed <span" not in page
    assert "org/broken" in page
    assert "model.gguf is cut off" in page


def test_a_node_that_can_do_none_of_this_shows_none_of_it(yui: User, signed_in: SignIn) -> None:
    plain = Node.objects.create(name="plain", base_url="http://127.0.0.1:9", node_type="vllm")
    page = text_of(signed_in(yui), f"/nodes/{plain.pk}/")
    assert "Downloads" not in page
    assert "cannot execute" not in page
    assert "Logs" not in page


def test_an_operator_orders_a_download(node: Node, ken: User, signed_in: SignIn) -> None:
    browser = signed_in(ken)
    path = f"/nodes/{node.pk}/download"
    assert "Quantization" in text_of(browser, path)
    assert browser.post(path, {"model": ""}).status_code == 422
    answer = browser.post(path, {"model": "org/new", "quantization": "Q4_K_M"}, follow=True)
    assert "own fetches org/new." in answer.content.decode()
    row = Download.objects.get()
    assert (row.model, row.options["quantization"], row.requested_by) == ("org/new:Q4_K_M", "Q4_K_M", "ken")


def test_a_refusal_is_shown_in_the_form(ken: User, signed_in: SignIn) -> None:
    plain = Node.objects.create(name="plain", base_url="http://127.0.0.1:9", node_type="vllm")
    answer = signed_in(ken).post(f"/nodes/{plain.pk}/download", {"model": "a"})
    assert answer.status_code == 422
    assert "fetches no models" in answer.content.decode()


def test_the_bar_shows_how_far_a_download_is(node: Node, yui: User, ken: User, signed_in: SignIn) -> None:
    Download.objects.create(
        node=node,
        model="org/new",
        state=DownloadState.RUNNING,
        downloaded_bytes=1 << 30,
        total_bytes=4 << 30,
        bytes_per_second=10 << 20,
    )
    part = text_of(signed_in(yui), f"/nodes/{node.pk}/downloads")
    assert 'aria-label="25.0 % of the model is there"' in part
    assert "1.0 GiB / 4.0 GiB · 10.0 MiB/s" in part
    assert "llmlb:downloads from:body" in part
    assert "Cancel" not in part  # a viewer
    assert "Cancel" in text_of(signed_in(ken), f"/nodes/{node.pk}/downloads")


def test_a_download_is_cancelled(node: Node, ken: User, signed_in: SignIn) -> None:
    row = services.start_download(node_id=node.pk, actor=SYSTEM, model="org/new")
    answer = signed_in(ken).post(f"/nodes/{node.pk}/downloads/{row.pk}/cancel", follow=True)
    assert "cancelled" in answer.content.decode()
    assert Download.objects.get().state == DownloadState.CANCELLED


def test_a_model_is_deleted(node: Node, fake: FakeNode, ken: User, signed_in: SignIn) -> None:
    browser = signed_in(ken)
    path = f"/nodes/{node.pk}/models/delete"
    assert "org/embed" in text_of(browser, path)
    assert browser.post(path, {"model": "org/none"}).status_code == 422
    answer = browser.post(path, {"model": "org/embed"}, follow=True)
    assert "org/embed is deleted on own." in answer.content.decode()
    assert fake.models == ["org/chat"]
    assert not NodeModel.objects.filter(model_id="org/embed").exists()


def test_the_log_is_shown_to_who_may_read_logs(node: Node, ken: User, yui: User, signed_in: SignIn) -> None:
    path = f"/nodes/{node.pk}/logs"
    page = text_of(signed_in(ken), path)
    assert page.index("line 40") < page.index("line 39")
    assert "line 40" not in text_of(signed_in(yui), path)
    assert f'href="{path}"' in text_of(signed_in(ken), f"/nodes/{node.pk}/")
    assert f'href="{path}"' not in text_of(signed_in(yui), f"/nodes/{node.pk}/")


def test_a_log_that_cannot_be_read_says_why(ken: User, signed_in: SignIn) -> None:
    away = Node.objects.create(name="away", base_url="http://127.0.0.1:9", node_type="xllm")
    assert "refuses connections" in text_of(signed_in(ken), f"/nodes/{away.pk}/logs")


@pytest.mark.parametrize("path", ["download", "downloads/1/cancel", "models/delete"])
def test_viewers_order_nothing(path: str, node: Node, yui: User, signed_in: SignIn) -> None:
    assert signed_in(yui).post(f"/nodes/{node.pk}/{path}", {"model": "org/chat"}).status_code == 403
    assert NodeModel.objects.filter(node=node).count() == 2

"""What may be asked for, and from where: told before anything is connected to."""

from __future__ import annotations

import pytest

from nodes.runtime.fetching.failures import BadWish, OriginRefused
from nodes.runtime.fetching.origins import Origins
from nodes.runtime.fetching.sources import FileSource, HubSource, ManifestSource, Wish, read_wish

HUB = Origins.from_environment({})
MIRROR = Origins.from_environment(
    {"HF_BASE_URL": "http://mirror:8080", "LLM_RUNTIME_ALLOWED_ORIGINS": "https://files.example.org, https://*.cdn.org"}
)


@pytest.mark.parametrize(
    ("model", "source"),
    [
        ("org/repo", HubSource("org/repo")),
        ("org/repo:Q4_K_M", HubSource("org/repo", quantization="Q4_K_M")),
        ("org/repo@refs/pr/3", HubSource("org/repo", "refs/pr/3")),
        ("org/repo:Q8_0@v1", HubSource("org/repo", "v1", quantization="Q8_0")),
        ("hf.co/org/repo:Q4_0", HubSource("org/repo", quantization="Q4_0")),
        ("https://huggingface.co/org/repo", HubSource("org/repo")),
        ("https://huggingface.co/org/repo/tree/v2", HubSource("org/repo", "v2")),
        ("https://huggingface.co/org/repo/blob/main/a/b.gguf", HubSource("org/repo", filename="a/b.gguf")),
        (
            "https://huggingface.co/org/repo/resolve/main/b%20c.gguf?download=true",
            HubSource("org/repo", filename="b c.gguf"),
        ),
    ],
)
def test_ways_to_name_a_repository(model: str, source: HubSource) -> None:
    assert read_wish(Wish(model), HUB) == source


def test_a_mirror_may_be_a_part_of_another_server() -> None:
    mirror = Origins.from_environment({"HF_BASE_URL": "https://files.example.org/hf/"})
    for page in ("https://files.example.org/hf/org/repo", "https://huggingface.co/org/repo"):
        assert read_wish(Wish(page), mirror) == HubSource("org/repo")


def test_other_servers_have_files_and_manifests() -> None:
    file = "https://files.example.org/a.gguf"
    assert read_wish(Wish(file, sha256="A" * 64), MIRROR) == FileSource(file, "a" * 64)
    manifest = "https://eu.cdn.org/m/manifest.json"
    assert read_wish(Wish(manifest), MIRROR) == ManifestSource(manifest)


@pytest.mark.parametrize(
    "model",
    [
        "", "nosuch", "a/b/c", "../etc/passwd", "a/..", "a b/c", "org/repo:", "-x/y", "ftp://huggingface.co/a/b", "https://",
        "https://me:secret@huggingface.co/a/b", "https://huggingface.co/a", "https://files.example.org/readme.txt",
    ],
)  # fmt: skip
def test_what_names_no_model_is_refused(model: str) -> None:
    with pytest.raises(BadWish):
        read_wish(Wish(model), MIRROR)


def test_a_hash_that_is_none_is_refused() -> None:
    with pytest.raises(BadWish, match="64 hexadecimal digits"):
        read_wish(Wish("https://files.example.org/a.gguf", sha256="abc"), MIRROR)


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/a", "https://hf.co/a", "https://a.hf.co/a", "https://cas-bridge.xethub.hf.co/a",
        "https://cdn-lfs-us-1.huggingface.co/a", "https://HUGGINGFACE.CO:443/a", "http://mirror:8080/a",
        "https://files.example.org/a", "https://eu.cdn.org/a",
    ],
)  # fmt: skip
def test_allowed_origins(url: str) -> None:
    MIRROR.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://huggingface.co/a", "https://xhf.co/a", "https://.hf.co/a", "https://hf.co.evil.org/a", "https://hf.co:8443/a",
        "https://evil.org/https://hf.co/", "https://hf.co\\.evil.org/a", "http://mirror/a", "https://mirror:8080/a",
        "https://cdn.org/a", "http://169.254.169.254/a",
    ],
)  # fmt: skip
def test_all_others_are_refused(url: str) -> None:
    with pytest.raises(OriginRefused):
        MIRROR.check(url)


def test_the_token_is_told_to_the_hub_alone() -> None:
    origins = Origins.from_environment({"HF_TOKEN": "hf_secret"})
    assert origins.headers_for("https://huggingface.co/a/b") == {"Authorization": "Bearer hf_secret"}
    for other in ("https://cdn-lfs.huggingface.co/x", "https://hf.co/x", "http://huggingface.co/x"):
        assert origins.headers_for(other) == {}
    assert "hf_secret" not in repr(origins)

"""The first start of an empty installation, and the starts after it."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from tests.blackbox.conftest import MakeProduct


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_empty_directory_becomes_an_installation(product: MakeProduct) -> None:
    first = product(new=True)
    first.start()
    assert mode(first.data_dir) == 0o700
    assert mode(first.data_dir / "secret_key") == 0o600
    assert mode(first.data_dir / "llmlb.sqlite3") == 0o600
    assert f"{first.url}/" in first.output
    assert f"{first.url}/v1" in first.output
    assert f"{first.url}/admin/" in first.output
    assert first.output.count(first.password) == 1
    assert first.get("/livez").status_code == 200
    assert first.get("/v1/models").json()["data"] == []
    assert first.stop() == 0

    second = product(data_dir=first.data_dir)
    second.start()
    print(f"first start {first.seconds_to_ready:.1f} s, second {second.seconds_to_ready:.1f} s")  # noqa: T201
    assert "Password" not in second.output
    assert second.stop() == 0


def test_the_first_administrator_can_sign_in_and_must_choose_a_password(product: MakeProduct) -> None:
    with product() as running:
        body = {"username": "admin", "password": running.password}
        answer = running.post("/api/auth/login", json=body, headers={})
        assert answer.status_code == 200, answer.text
        token = {"Authorization": f"Bearer {answer.json()['token']}"}
        assert running.get("/api/nodes", headers=token).status_code == 403
        change = {"current_password": running.password, "new_password": "a long walk along the river"}
        changed = running.request("PUT", "/api/auth/change-password", json=change, headers=token)
        assert changed.status_code in (200, 204), changed.text


def test_a_given_password_is_not_printed(product: MakeProduct) -> None:
    secret = "the river is cold in spring"
    with product(environment={"LLMLB_ADMIN_USERNAME": "hana", "LLMLB_ADMIN_PASSWORD": secret}) as running:
        assert secret not in running.output
        assert "Password" not in running.output
        answer = running.post("/api/auth/login", json={"username": "hana", "password": secret}, headers={})
        assert answer.status_code == 200, answer.text


def test_secrets_come_from_files(product: MakeProduct, tmp_path: Path) -> None:
    password, key = tmp_path / "password", tmp_path / "key"
    password.write_text("the river is cold in spring\n")
    key.write_text("sk_" + "k" * 45 + "\n")
    files = {
        "LLMLB_ADMIN_PASSWORD_FILE": str(password),
        "LLMLB_BOOTSTRAP_API_KEY": None,
        "LLMLB_BOOTSTRAP_API_KEY_FILE": str(key),
    }
    with product(environment=files) as running:
        running.key = key.read_text().strip()
        assert running.get("/v1/models").status_code == 200
        body = {"username": "admin", "password": "the river is cold in spring"}
        assert running.post("/api/auth/login", json=body, headers={}).status_code == 200


def test_static_files_of_dashboard_and_admin_are_served(product: MakeProduct) -> None:
    with product() as running:
        page = running.get("/login", headers={})
        assert page.status_code == 200
        files = re.findall(r'(?:href|src)="(/static/[^"]+\.(?:css|js|svg))"', page.text)
        assert files, "the sign-in page has no style sheet"
        for file in [*files, "/static/admin/css/base.css"]:
            answer = running.get(file, headers={})
            assert answer.status_code == 200, file
            assert "cache-control" in answer.headers

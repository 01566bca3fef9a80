"""Loaded before Django's settings: no test sees the developer's environment or data directory."""

import atexit
import os
import shutil
import tempfile

_ours = ("LLMLB_TEST_", "LLMLB_DRILL")  # said to the tests, not to llmlb
for name in [name for name in os.environ if name.startswith("LLMLB_") and not name.startswith(_ours)]:
    del os.environ[name]
for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(name, None)

for name in [name for name in os.environ if name.startswith(("OPENAI_", "GOOGLE_API_", "ANTHROPIC_"))]:
    del os.environ[name]

_data_dir = tempfile.mkdtemp(prefix="llmlb-test-")
os.environ["LLMLB_DATA_DIR"] = _data_dir
os.environ["LLMLB_SECRET_KEY"] = "a key for tests only, the same in every process of a run"
if database_url := os.environ.get("LLMLB_TEST_RUN_DATABASE_URL"):
    os.environ["LLMLB_DATABASE_URL"] = database_url
if redis_url := os.environ.get("LLMLB_TEST_RUN_REDIS_URL"):
    # Each worker of pytest-xdist has a Redis database of its own, counted from the far end, where nobody's data is.
    _worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.environ["LLMLB_REDIS_URL"] = f"{redis_url.rstrip('/')}/{15 - _worker}"
atexit.register(shutil.rmtree, _data_dir, ignore_errors=True)

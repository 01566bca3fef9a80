"""Loaded before Django's settings: no test sees the developer's environment or data directory."""

import atexit
import os
import shutil
import tempfile

for name in [name for name in os.environ if name.startswith("LLMLB_") and not name.startswith("LLMLB_TEST_")]:
    del os.environ[name]
for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(name, None)

_data_dir = tempfile.mkdtemp(prefix="llmlb-test-")
os.environ["LLMLB_DATA_DIR"] = _data_dir
os.environ["LLMLB_SECRET_KEY"] = "a key for tests only, the same in every process of a run"
if database_url := os.environ.get("LLMLB_TEST_RUN_DATABASE_URL"):
    os.environ["LLMLB_DATABASE_URL"] = database_url
if redis_url := os.environ.get("LLMLB_TEST_RUN_REDIS_URL"):
    os.environ["LLMLB_REDIS_URL"] = redis_url
atexit.register(shutil.rmtree, _data_dir, ignore_errors=True)

"""A relay as processes: awaited, observed with all that they started, and ended with them."""

from __future__ import annotations

import http.server
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from loadtests.address import TargetError
from loadtests.target import process as process_module
from loadtests.target.metrics_page import read
from loadtests.target.process import TargetProcess, usage_of

pytestmark = pytest.mark.process

BUSY = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[TargetProcess]]:
    found: list[TargetProcess] = []
    yield found
    for one in found:
        one.stop()


def python(text: str, tmp_path: Path, started: list[TargetProcess]) -> TargetProcess:
    made = TargetProcess([sys.executable, "-c", text], log=tmp_path / "relay.log", name="mine")
    started.append(made)
    made.start()
    return made


def test_what_it_starts_is_observed_and_ended_with_it(tmp_path: Path, started: list[TargetProcess]) -> None:
    made = python(
        f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', '''{BUSY}'''])\n"
        f"child = subprocess.Popen([sys.executable, '-c', '''{BUSY}import time; time.sleep(60)'''])\n"
        "print('child', child.pid, flush=True)\ntime.sleep(60)\n",
        tmp_path,
        started,
    )
    made.await_that(lambda: "child" in made.logged(), "says nothing")
    child = int(made.logged().split()[1])
    for _ in range(500):
        usage = made.usage()
        assert usage is not None
        if usage.cpu_ns > 550_000_000:
            break
        time.sleep(0.02)
    assert usage.cpu_ns > 550_000_000, "of the child that ended, and of the one that runs"
    assert usage.rss_bytes > 4_000_000
    made.stop()
    for _ in range(500):  # it was killed, and takes a moment to be gone
        if not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.01)
    else:
        raise AssertionError("its child runs on")
    assert made.usage() is None


def test_cpu_is_told_finer_than_a_clock_tick() -> None:
    usage = [usage_of(psutil.Process()) for _ in range(20)]
    used = [found.cpu_ns for found in usage if found is not None]
    assert used == sorted(used)
    assert used[-1] - used[0] > 0
    assert len(set(used)) == len(used), "each look takes some, and none of them 10 ms"


def test_one_that_dies_leaves_its_last_words(tmp_path: Path, started: list[TargetProcess]) -> None:
    made = python("raise SystemExit('no licence')", tmp_path, started)
    with pytest.raises(TargetError, match=r"mine ended with code 1\. Its log ends: no licence"):
        made.await_port("127.0.0.1", 9)


def test_one_that_never_becomes_ready_is_told(
    tmp_path: Path, started: list[TargetProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "START_S_MAX", 0.1)
    made = python("import time; time.sleep(60)", tmp_path, started)
    with pytest.raises(TargetError, match=r"mine does not listen at 127.0.0.1:9 after 0 s\. Its log is empty"):
        made.await_port("127.0.0.1", 9)
    with pytest.raises(TargetError, match=r"mine is not ready: http://127.0.0.1:9/ does not answer with 200"):
        made.await_page("http://127.0.0.1:9/")


def test_one_that_would_not_end_is_killed(
    tmp_path: Path, started: list[TargetProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "STOP_S_MAX", 0.1)
    made = python(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(60)",
        tmp_path,
        started,
    )
    made.await_that(lambda: "deaf" in made.logged(), "says nothing")
    assert made.stop() == -9


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    made = TargetProcess(["/no/such/program"], log=tmp_path / "relay.log", name="mine")
    with pytest.raises(TargetError, match=r"mine could not be started: No such file or directory: /no/such/program\."):
        made.start()
    assert made.stop() is None


def test_a_page_of_metrics_is_summed_over_labels() -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(
                b'# TYPE sent counter\nsent_total{to="a"} 2\nsent_total{to="b"} 3\nsent_created 99\nopen 4.5\n'
                b'# TYPE took histogram\ntook_bucket{le="+Inf"} 7\ntook_sum 1\ntook_count 7\n'
                if self.path == "/metrics"
                else b"<html>"
            )

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        assert read(f"{url}/metrics") == {"sent_total": 5.0, "open": 4.5}
        assert read(f"{url}/other") == {}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert read(f"{url}/metrics") == {}

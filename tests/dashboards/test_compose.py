"""compose.yaml and what it mounts fit together: there are no containers in the tests, so names and paths are compared."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from promql import BOARDS, FOLDER, load_board


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


COMPOSE = read(FOLDER / "compose.yaml")
SERVICES = COMPOSE["services"]


def on_this_side(service: str, path: str) -> Path:
    """Return the file of the repository that a service sees at `path`."""
    for mount in SERVICES[service]["volumes"]:
        source, target, *_ = mount.split(":")
        if source.startswith("./") and PurePosixPath(path).is_relative_to(target):
            return FOLDER / source / PurePosixPath(path).relative_to(target)
    raise AssertionError(f"{service} sees nothing at {path}")


def test_every_mount_exists_and_is_read_only_and_every_volume_is_declared() -> None:
    for service in SERVICES.values():
        for mount in service["volumes"]:
            source, _, mode = (*mount.split(":"), "rw")[:3]
            if source.startswith("./"):
                assert (FOLDER / source).is_dir(), mount
                assert mode == "ro", mount
            else:
                assert source in COMPOSE["volumes"], mount


def test_images_have_versions_and_grafana_is_11_or_later() -> None:
    for service in SERVICES.values():
        _, _, version = service["image"].partition(":")
        assert version[:1].isdigit() or version[:1] == "v", service["image"]
    assert int(SERVICES["grafana"]["image"].partition(":")[2].split(".")[0]) >= 11


def test_prometheus_finds_its_configuration_and_its_rules() -> None:
    (config,) = [part.partition("=")[2] for part in SERVICES["prometheus"]["command"] if "--config.file" in part]
    found = on_this_side("prometheus", config)
    listed = [
        name
        for job in read(found)["scrape_configs"]
        for part in job.get("file_sd_configs", ())
        for name in part["files"]
    ]
    for name in (*read(found)["rule_files"], *listed):
        assert (found.parent / name).is_file(), name


def test_grafana_finds_the_data_source_and_every_board() -> None:
    provisioning = on_this_side("grafana", "/etc/grafana/provisioning")
    (source,) = read(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    listen = [part.partition("=")[2] for part in SERVICES["prometheus"]["command"] if "listen" in part]
    assert source["type"] == "prometheus"
    assert source["url"] == f"http://{listen[0]}"
    interval = read(FOLDER / "prometheus" / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval, "Grafana's rate windows follow the scrape interval"
    (provider,) = read(provisioning / "dashboards" / "relaymark.yaml")["providers"]
    assert sorted(on_this_side("grafana", provider["options"]["path"]).glob("*.json")) == BOARDS
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert load_board(on_this_side("grafana", home))["title"] == "relaymark: Load test"


def test_nothing_listens_beyond_loopback() -> None:
    assert "--web.listen-address=127.0.0.1:9090" in SERVICES["prometheus"]["command"]
    assert SERVICES["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert all("ports" not in service for service in SERVICES.values())

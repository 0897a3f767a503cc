"""The compose file's two profiles, as they are written; `make image-test` runs the first."""

import pytest
import yaml
from sqlalchemy.engine import make_url

from stepback_server.settings import Settings
from tests.conftest import ROOT

SERVICES: dict[str, dict] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
PROFILES = {"cpu": "stepback-llm/cpu", "gpu": "stepback-llm/cuda"}


def started(profile: str) -> dict[str, dict]:
    return {
        name: service
        for name, service in SERVICES.items()
        if profile in service.get("profiles", [profile])
    }


def test_the_engine_on_a_cpu_is_what_is_started_by_default() -> None:
    lines = (ROOT / ".env").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["COMPOSE_PROFILES=cpu"]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_has_one_engine_and_one_controller(profile: str) -> None:
    for role, image in (("engine", PROFILES[profile]), ("controller", "stepback-llm/controller")):
        [service] = [each for each in started(profile).values() if role in _aliases(each)]
        assert service["image"].startswith(image + ":")


def _aliases(service: dict) -> list[str]:
    networks = service["networks"]
    return networks["engine"]["aliases"] if isinstance(networks, dict) else []


@pytest.mark.parametrize("profile", PROFILES)
def test_a_service_waits_only_for_what_its_profile_starts(profile: str) -> None:
    services = started(profile)
    waits = {name: set(service.get("depends_on", ())) for name, service in services.items()}
    assert set().union(*waits.values()) <= services.keys()
    [controller] = [name for name in services if name.startswith("controller")]
    [engine] = [name for name in services if name.startswith("engine")]
    # So that it is also stopped before its engine, and its searches can end.
    assert waits[controller] == {engine}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_database_is_reached_by_controllers_alone_and_awaited_by_none(profile: str) -> None:
    services = started(profile)
    reach = {name for name, service in services.items() if "database" in service["networks"]}
    [controller] = [name for name in services if name.startswith("controller")]
    assert reach == {"database", controller}
    given = services[controller]["environment"]["STEPBACK_DATABASE_URL"]
    address = make_url(given.replace("${DATABASE_PASSWORD:-stepback}", "secret"))
    assert (address.host, address.password, address.username) == ("database", "secret", "stepback")
    assert services["database"]["read_only"] and "ports" not in services["database"]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_largest_uploads_have_room(profile: str) -> None:
    [controller] = [it for name, it in started(profile).items() if name.startswith("controller")]
    given = {k: v for k, v in controller["environment"].items() if k == "STEPBACK_MAX_FILE_MIB"}
    [tmp] = controller["tmpfs"]
    mebibytes = int(tmp.removeprefix("/tmp:size=").removesuffix("m"))
    assert mebibytes == 64 + 2 * Settings.read(given).max_file_mib
    # What lies there is memory of the container, beside that of the process.
    assert int(controller["mem_limit"].removesuffix("m")) >= mebibytes + 1024


def test_keys_are_for_both_controllers() -> None:
    keys = yaml.safe_load((ROOT / "compose.keys.yaml").read_text())["services"]
    assert keys.keys() == {name for name in SERVICES if name.startswith("controller")}

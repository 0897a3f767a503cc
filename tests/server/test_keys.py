"""The key store: what it takes, what it refuses, and what it never says."""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import SecretStr

from stepback_core.errors import InvalidInput
from stepback_server.app import create_app
from stepback_server.checkpoint import Checkpoint
from stepback_server.gateway.keys import KeyRing, is_loopback, new_key
from stepback_server.gateway.rate_limit import RateLimiter
from stepback_server.gateway.tenant import Tenant
from stepback_server.settings import Settings
from tests.conftest import CHECKPOINT

HASH = sha256(b"a key").hexdigest()


def test_a_new_key_opens_with_the_line_that_came_with_it(tmp_path: Path) -> None:
    alice, first = new_key("alice", 3, 5000)
    bob, second = new_key("bob")
    path = tmp_path / "keys.toml"
    path.write_text(f"# ours\n{first}\n{second}\n")
    ring = KeyRing(path)
    assert ring.find(alice) == Tenant("alice", 3, 5000)
    assert ring.find(bob) == Tenant("bob")
    for wrong in ("", "alice", alice[:-1], alice + "x", alice.upper(), "\xff", HASH):
        assert ring.find(wrong) is None
    assert alice not in path.read_text() and not ring.is_open


def test_the_setting_is_the_same_text_and_stands_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    alice, line = new_key("alice")
    path.write_text(line)
    bob, text = new_key("bob")
    ring = KeyRing(path, text)
    assert (ring.find(alice), ring.find(bob)) == (Tenant("alice"), Tenant("bob"))
    with pytest.raises(InvalidInput, match="alice"):
        KeyRing(path, line)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    alice, line = new_key("alice")
    path = tmp_path / "keys.toml"
    path.write_text(line, encoding="utf-8-sig")
    assert KeyRing(path).find(alice) == Tenant("alice")


def test_no_keys_is_open_and_a_file_without_any_is_locked(tmp_path: Path) -> None:
    assert KeyRing().is_open
    path = tmp_path / "keys.toml"
    path.write_text("# none yet\n")
    assert not KeyRing(path).is_open


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("alice = ", "not TOML"),
        (f'alice = {{ sha256 = "{HASH}" }}\nalice = {{ sha256 = "{HASH}" }}', "not TOML"),
        (f'alice = {{ sha256 = "{HASH}" }}\nbob = {{ sha256 = "{HASH}" }}', "alice have the same"),
        ('alice = "stepback_secret"', "alice"),
        ('alice = { sha256 = "stepback_secret" }', "alice: sha256"),
        (f'alice = {{ sha256 = "{HASH.upper()}" }}', "alice: sha256"),
        ('alice = { key = "stepback_secret" }', "alice"),
        (f'alice = {{ sha256 = "{HASH}", max_searches = 0 }}', "alice: max_searches"),
        (f'alice = {{ sha256 = "{HASH}", max_searches = "3" }}', "alice: max_searches"),
        (f'alice = {{ sha256 = "{HASH}", tokens_per_minute = -1 }}', "alice: tokens_per_minute"),
        (f'"stepback secret" = {{ sha256 = "{HASH}" }}', "entry 1"),
    ],
)
def test_a_malformed_file_is_named_with_its_entry_and_no_value(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=named) as refusal:
        KeyRing(path)
    message = str(refusal.value)
    assert "secret" not in message and "\n" not in message
    assert str(path) in message or "the same key" in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.toml"):
        KeyRing(tmp_path / "nowhere.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="UTF-8"):
        KeyRing(tmp_path / "binary")


def test_a_reload_takes_what_is_new_and_keeps_what_was_where_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    alice, first = new_key("alice")
    bob, second = new_key("bob")
    path.write_text(first)
    ring = KeyRing(path)
    path.write_text(second)
    ring.reload()
    assert ring.find(alice) is None and ring.find(bob) is not None
    path.write_text("broken")
    with pytest.raises(InvalidInput):
        ring.reload()
    assert ring.find(bob) is not None


@pytest.mark.parametrize("name", ["", "al ice", "a" * 65, "a.b", "ä"])
def test_a_name_that_no_file_could_hold_gets_no_key(name: str) -> None:
    with pytest.raises(InvalidInput):
        new_key(name)


def keys_new(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stepback_client.cli", "keys", "new", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


def test_the_command_prints_a_key_once_and_its_line() -> None:
    done = keys_new("alice", "--max-searches", "3", "--tokens-per-minute", "500")
    [key, line] = [text for text in done.stdout.splitlines() if text and not text.startswith("#")]
    assert KeyRing(text=line).find(key) == Tenant("alice", 3, 500)
    assert KeyRing(text=done.stdout.replace(key, "")).find(key)


@pytest.mark.parametrize("arguments", [["al ice"], ["alice", "--max-searches", "0"]])
def test_the_command_refuses_in_one_line_what_no_file_could_hold(arguments: list[str]) -> None:
    done = keys_new(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("host", "keys", "warns"),
    [("0.0.0.0", False, True), ("0.0.0.0", True, False), ("127.0.0.1", False, False)],
)
def test_an_open_server_that_others_reach_warns_once(
    caplog: pytest.LogCaptureFixture, host: str, keys: bool, warns: bool
) -> None:
    settings = Settings(host=host, keys=SecretStr(new_key("alice")[1] if keys else ""))
    create_app(settings, Checkpoint.open(CHECKPOINT))
    assert len([record for record in caplog.records if "no keys" in record.message]) == warns


def test_loopback_is_told_from_the_world() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.1", "example.org", "")))


# --- tokens a minute ---


def test_a_bucket_is_charged_what_was_generated_and_says_exactly_when_there_is_room() -> None:
    now = 0.0
    meter = RateLimiter(lambda: now)
    tenant = Tenant("alice", tokens_per_minute=600)
    assert meter.wait(tenant) == 0
    meter.charge(tenant, 599)
    assert meter.wait(tenant) == 0, "something is left, and what a search costs is not known"
    meter.charge(tenant, 101)
    wait = meter.wait(tenant)
    assert wait == 11, "a debt of 100 at 10 tokens/s, and something must be left"
    now += wait - 1
    assert meter.wait(tenant) == 1
    now += 1
    assert meter.wait(tenant) == 0


def test_over_time_the_rate_holds_whatever_a_search_costs() -> None:
    now, used = 0.0, 0
    meter = RateLimiter(lambda: now)
    tenant = Tenant("alice", tokens_per_minute=60)
    while now < 36_000:
        wait = meter.wait(tenant)
        if wait == 0:
            meter.charge(tenant, 500)
            used += 500
        now += wait
    assert used <= 36_000 + 60 + 500
    assert used >= 36_000 - 500


def test_a_bucket_never_holds_more_than_a_minute_and_tenants_have_their_own() -> None:
    now = 0.0
    meter = RateLimiter(lambda: now)
    alice, bob = Tenant("alice", tokens_per_minute=60), Tenant("bob", tokens_per_minute=60)
    meter.wait(alice)
    now += 3600
    meter.charge(alice, 60)
    assert meter.wait(alice) == 1
    assert meter.wait(bob) == 0
    assert meter.wait(Tenant("carol")) == 0

"""API keys: made here, kept as hashes, recognised in constant time.

A key is 256 random bits, so one SHA-256 hides it as well as a slow hash would: bcrypt and its kin
make guessing *short* secrets dear, and here there is nothing to guess.

The file is TOML, since an operator writes it by hand, may comment it, and a name that stands twice
is an error there, not silently the last one. The setting `keys` is the same text in one variable.
"""

import hmac
import ipaddress
import re
import secrets
import tomllib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stepback_core.errors import InvalidInput
from stepback_core.validation import first_error
from stepback_server.gateway.tenant import ANYONE, Tenant
from stepback_server.redaction import KEY_PREFIX

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME_RULE = "its name is not 1 to 64 of A-Z, a-z, 0-9, '_' and '-'"


class KeyEntry(BaseModel):
    """Stored entry of one key."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    max_searches: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None

    def line(self, name: str) -> str:
        """The entry as one line of the file."""
        given = self.model_dump(exclude_none=True)
        fields = ", ".join(
            f'{field} = "{value}"' if isinstance(value, str) else f"{field} = {value}"
            for field, value in given.items()
        )
        return f"{name} = {{ {fields} }}"


class KeyRing:
    """The keys and their tenants. Without any key the server is open."""

    def __init__(self, path: Path | None = None, text: str = "") -> None:
        """Read the keys file and the setting's text. Raises InvalidInput."""
        self._path = path
        self._text = text
        self._tenants: dict[bytes, Tenant] = {}
        self.reload()

    @property
    def is_open(self) -> bool:
        """True if no key is needed. A file that holds none closes the server to all."""
        # By what was configured, not by how many keys there are: a file that was emptied must not
        # open the server.
        return self._path is None and not self._text

    def reload(self) -> None:
        """Read `path` again. Raises InvalidInput, and then keeps the keys as they were."""
        entries = _entries(self._text, "STEPBACK_KEYS")
        if self._path is not None:
            for name, entry in _entries(_read(self._path), str(self._path)).items():
                if name in entries:
                    raise InvalidInput(f"{self._path}: {name}: STEPBACK_KEYS has this name too")
                entries[name] = entry
        tenants: dict[bytes, Tenant] = {}
        for name, entry in entries.items():
            hashed = bytes.fromhex(entry.sha256)
            if hashed in tenants:
                raise InvalidInput(f"{name} and {tenants[hashed].name} have the same key")
            tenants[hashed] = Tenant(name, entry.max_searches, entry.tokens_per_minute)
        # At the end, in one assignment: a file with a mistake leaves the old keys in force.
        self._tenants = tenants

    def named(self, name: str) -> Tenant | None:
        """The tenant of a name, as the keys are now; None for one whose key was withdrawn."""
        if self.is_open:
            return ANYONE
        return next((each for each in self._tenants.values() if each.name == name), None)

    def find(self, key: str) -> Tenant | None:
        """Find the tenant of a key. The time that it takes does not depend on how much of it is
        right."""
        # Hashed before it is compared: what timing could tell of the comparison is of the hash
        # alone.
        presented = sha256(key.encode()).digest()
        found = None
        # To the end also after a hit: the time must not tell where a key stands.
        for hashed, tenant in self._tenants.items():
            if hmac.compare_digest(hashed, presented):
                found = tenant
        return found


def new_key(
    name: str, max_searches: int | None = None, tokens_per_minute: int | None = None
) -> tuple[str, str]:
    """A fresh key, and the line for the file that lets it in. Raises InvalidInput."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"keys new: {_NAME_RULE}")
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    fields = {"max_searches": max_searches, "tokens_per_minute": tokens_per_minute}
    entry = _entry(name, {"sha256": sha256(key.encode()).hexdigest()} | fields, "keys new")
    return key, entry.line(name)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path}: it is not UTF-8") from None


def _entries(text: str, source: str) -> dict[str, KeyEntry]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{source}: it is not TOML: {error}") from None
    for number, name in enumerate(table, 1):
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{source}: entry {number}: {_NAME_RULE}")
    return {name: _entry(name, fields, source) for name, fields in table.items()}


def _entry(name: str, fields: Any, source: str) -> KeyEntry:
    if not isinstance(fields, Mapping):
        raise InvalidInput(f'{source}: {name}: write {name} = {{ sha256 = "..." }}')
    try:
        return KeyEntry.model_validate(fields)
    except ValidationError as error:
        # Without its cause, which would carry the value along.
        raise InvalidInput(f"{source}: {name}: {first_error(error, whole='entry')}") from None

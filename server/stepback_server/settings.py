"""The server's settings: one frozen object, from the environment and the command line."""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from stepback_core.errors import InvalidInput
from stepback_core.schemas.request import LONGEST_SECONDS
from stepback_server.setting_values import EngineKey, VllmArgs

ENVIRONMENT_PREFIX = "STEPBACK_"
# Names with the prefix that belong to the client and to the install.
_CLIENT_VARIABLES = frozenset(
    {"STEPBACK_URL", "STEPBACK_API_KEY", "STEPBACK_HEADERS", "STEPBACK_TORCH_INDEX"}
)


_SERVICE_LINK = re.compile(
    r"STEPBACK_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)
# Variables that Kubernetes sets in each pod for a Service whose name begins with stepback.
_SERVICE_ADDRESS = re.compile(r"STEPBACK_(\w+_)?PORT=(tcp|udp|sctp)://.*", re.DOTALL)


def _none_if_empty(text: object) -> object:
    """An empty variable names nothing, least of all the working directory."""
    return None if text == "" else text


def _split_urls(text: object) -> object:
    """Addresses without a slash at the end, from text that separates them with commas."""
    if not isinstance(text, str):
        return text
    return tuple(
        dict.fromkeys(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    )


def _split(text: object) -> object:
    """The parts of text that separates them with commas."""
    if not isinstance(text, str):
        return text
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Origin = Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^\s/@?#A-Z]+)$")]
Origins = Annotated[tuple[Origin, ...], BeforeValidator(_split)]
OptionalText = Annotated[str | None, BeforeValidator(_none_if_empty)]
OptionalCount = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_none_if_empty)]
EngineUrl = Annotated[str, Field(pattern=r"^(dns\+http|https?)://[^\s/@?#]+(/[^\s?#]*)?$")]
EngineUrls = Annotated[tuple[EngineUrl, ...], BeforeValidator(_split_urls)]


class Settings(BaseModel):
    """Settings of the server. Values come as text and are checked at the start."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: Path = Path("models/multitask-10m")
    """The checkpoint folder to serve."""
    tasks: Names = ()
    """Tasks of installed plug-ins, such as sorting or gym:countdown, separated by commas."""
    task_seconds: float = Field(default=2.0, gt=0, le=60)
    """Longest call of a plug-in's checker."""
    task_memory_mib: int = Field(default=1024, ge=16)
    """Memory that one call of a plug-in's checker may take, MiB."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""
    root_path: str = Field(default="", pattern=r"^(/[A-Za-z0-9._~-]+)*$")
    """The prefix under which a proxy publishes this server, such as /stepback; none: the root."""
    cors_origins: Origins = ()
    """Origins whose web pages may call this server, such as http://localhost:5173, separated by
    commas; * for every one; none: no page of another origin may."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of vLLM: cpu or cuda."""
    engine_urls: EngineUrls = ()
    """vLLM servers to sample from, their addresses separated by commas; none: vLLM runs in here.
    dns+http://NAME:PORT stands for one at each address of a name, which is resolved again and
    again."""
    engine_api_key: EngineKey = None
    """The key that those servers want, where they want one."""
    kv_cache_mib: int = Field(default=256, ge=8)
    """Key-value cache on a CPU, MiB. On CUDA vLLM sizes its own."""
    context_tokens: OptionalCount = None
    """The longest sequence, prompt included; none: the model's own, or what the cache holds."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Numbers of the model; auto: bfloat16; float32 on a CPU and float16 on a GPU without it."""
    gpu_memory_share: float = Field(default=0.9, gt=0, le=1)
    """Share of a GPU's memory that vLLM takes."""
    tensor_parallel: int = Field(default=1, ge=1)
    """GPUs over which the model is spread."""
    quantization: OptionalText = None
    """Quantization of the weights, by vLLM's name for it (fp8, bitsandbytes); none: as the
    checkpoint says."""
    vllm_args: VllmArgs = {}
    """Any other argument of vLLM, as a JSON object: {"max_num_batched_tokens": 4096}."""
    threads: OptionalCount = None
    """Threads of vLLM on a CPU; none: one for a model under 256 MiB, else one a core."""
    max_running: int = Field(default=256, ge=1)
    """Sequences that the engine runs at once; more wait inside it."""
    max_searches: int = Field(default=32, ge=1)
    """Searches in flight; more wait in the queue."""
    max_queued: int = Field(default=64, ge=0)
    """Searches that may wait; more are refused with 429."""
    max_queue_seconds: float = Field(default=60.0, gt=0, le=3600)
    """Longest wait of a search; after that it is refused with 429."""
    max_breadth: int = Field(default=256, ge=1, le=1024)
    """The largest breadth (N) that a request may ask for."""
    max_backtracks: int = Field(default=16, ge=0, le=64)
    """The largest number of backtracking rounds (b) that a request may ask for."""
    budget_tokens: int = Field(default=100_000, ge=1, le=10_000_000)
    """Generated tokens of one search: the default and the largest budget."""
    budget_seconds: float = Field(default=120.0, gt=0, le=LONGEST_SECONDS)
    """Seconds of one search: the default and the largest budget."""
    max_batch: int = Field(default=256, ge=1, le=10_000)
    """Problems in one call of /solve/batch, and prompts in one of /v1/completions."""
    max_body_bytes: int = Field(default=1 << 20, ge=1024)
    """The largest request body; a larger one is refused with 413."""
    max_nesting: int = Field(default=64, ge=8, le=200)
    """Levels of objects and lists in a request body; a deeper one is refused with 422."""
    keys_file: Path | None = None
    """TOML with a hashed key a line, as `stepback keys new` prints it; read again on SIGHUP."""
    keys: SecretStr = SecretStr("")
    """The text of such a file, in addition to it or instead. Without any key the server is open."""
    checkers_file: Annotated[Path | None, BeforeValidator(_none_if_empty)] = None
    """TOML with the scorers that a request may name, a table each: see docs/scorers.md."""
    metrics_need_key: bool = False
    """Require a key for /metrics too; Prometheus usually reads it from inside."""
    idempotency_results: int = Field(default=256, ge=0)
    """Results that each key may have kept for a repeated Idempotency-Key; the oldest go first."""
    idempotency_mib: int = Field(default=16, ge=0)
    """Memory for these, MiB a key."""
    idempotency_seconds: float = Field(default=600.0, ge=0, le=86_400)
    """Time for which they are kept."""
    grace_seconds: float = Field(default=5.0, ge=0, le=600)
    """Time that searches have after SIGTERM, or before new weights, before they return the
    best so far."""
    reload_root: Annotated[Path | None, BeforeValidator(_none_if_empty)] = None
    """Folder that new weights may be loaded from while the server runs; none: they may not."""
    database_url: SecretStr = SecretStr("sqlite:///stepback.db")
    """Database of jobs: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/NAME for several
    controllers; empty: there are no jobs."""
    lease_seconds: float = Field(default=15.0, ge=1, le=600)
    """Silence after which a controller is taken for dead; others go on with its jobs."""
    shared_seconds: float = Field(default=0.5, gt=0, le=60)
    """Longest wait of a search for the limits that controllers share in PostgreSQL. Where the
    database is slower, this controller's own count holds."""
    batch_searches: int = Field(default=16, ge=1)
    """Lines of batches in flight while there are no other searches."""
    batch_floor: int = Field(default=1, ge=0)
    """Lines of batches in flight while others search; 0: batches wait until they are done."""
    batch_pause: float = Field(default=5.0, ge=0, le=3600)
    """Seconds of pause after each of these lines, while the others leave no gap."""
    batch_lines: int = Field(default=50_000, ge=1, le=1_000_000)
    """Lines that one batch may have."""
    max_file_mib: int = Field(default=200, ge=1, le=4096)
    """The largest file that may be uploaded, MiB."""
    job_days: float = Field(default=30.0, gt=0, le=3650)
    """Time for which the results of background searches, and the files of batches, are kept."""
    guide_dir: Annotated[Path | None, BeforeValidator(_none_if_empty)] = None
    """Folder of the documentation's site, as `make site` builds it: served at /guide/."""
    keep_alive_seconds: int = Field(default=75, ge=1, le=3600)
    """Time for which an idle connection is kept; longer than the proxies in front keep theirs."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Level of the server's own log: debug, info, warning or error."""
    log_format: Literal["text", "json"] = "text"
    """Format of the log: text for a person, or json, one object a line, for a collector."""

    @classmethod
    def read(
        cls,
        environment: Mapping[str, str],
        arguments: Sequence[str] = (),
        *,
        command: str = "serve",
    ) -> "Settings":
        """Settings from the environment, and command-line flags over them. Raises InvalidInput."""
        values = _from_environment(environment) | _from_flags(arguments, command)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            flag = flag_of(name)
            named = f"{variable_of(name)} ({flag})" if flag else variable_of(name)
            raise InvalidInput(f"{named}: {first['msg']}") from error


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"{ENVIRONMENT_PREFIX}{name.upper()}"


def flag_of(name: str) -> str | None:
    """The flag of a setting; None for a secret, since every user of a machine can read flags."""
    field = Settings.model_fields.get(name)
    if field and SecretStr in (field.annotation, *get_args(field.annotation)):
        return None
    return f"--{name.replace('_', '-')}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag for each setting that is no secret."""
    for name, field in Settings.model_fields.items():
        if flag := flag_of(name):
            parser.add_argument(
                flag,
                dest=name,
                default=argparse.SUPPRESS,
                metavar="VALUE",
                help=f"{field.description} ({variable_of(name)}; {field.default})",
            )


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in _CLIENT_VARIABLES:
            continue
        if _SERVICE_LINK.fullmatch(variable) or _SERVICE_ADDRESS.fullmatch(f"{variable}={value}"):
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name not in Settings.model_fields:
            raise InvalidInput(f"{variable}: there is no such setting")
        values[name] = value
    return values


def _from_flags(arguments: Sequence[str], command: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser(f"stepback {command}", allow_abbrev=False)
    add_flags(parser)
    return vars(parser.parse_args(arguments))


def read_settings(arguments: Sequence[str], *, command: str = "serve") -> Settings:
    return Settings.read(os.environ, arguments, command=command)

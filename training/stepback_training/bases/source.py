"""A base as it lies there: a folder, a GGUF file, or a name of the hub; opened part by part."""

import json
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils.quantization_config import GgufConfig

from stepback_core.errors import InvalidInput
from stepback_core.manifest import MANIFEST_NAME, Manifest
from stepback_training.bases.families import check_family

_PACKAGE = "package:"
ADAPTER_CONFIG = "adapter_config.json"
# Files of GPTQ, AWQ and ModelOpt, some of which leave the configuration as it was.
_QUANTISED = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")


@dataclass(frozen=True, slots=True)
class BaseSource:
    """Location of a base. Opening it raises InvalidInput by name of the part, the weights last of
    all."""

    path: str
    gguf: dict[str, str] = field(default_factory=dict)
    """The argument of `transformers` for the file, of a GGUF file alone."""

    @classmethod
    def at(cls, path: str) -> "BaseSource":
        """The base at a path; what cannot be one is refused without reading any weights."""
        path = _in_package(path.removeprefix(_PACKAGE)) if path.startswith(_PACKAGE) else path
        if path.endswith(".gguf"):
            return cls._of_gguf(Path(path))
        source = cls(path)
        source._check_files()
        return source

    @classmethod
    def _of_gguf(cls, file: Path) -> "BaseSource":
        if not file.is_file():
            raise InvalidInput(f"{file}: there is no such file")
        try:
            import gguf  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
        except ModuleNotFoundError as error:
            raise InvalidInput(
                f"{error.name} is not installed, and a GGUF file needs it: install this "
                "distribution with its extras [training,gguf]"
            ) from error
        return cls(str(file.parent), {"gguf_file": file.name})

    @property
    def name(self) -> str:
        return "/".join([self.path, *self.gguf.values()])

    @property
    def manifest(self) -> Manifest | None:
        """The manifest of `stepback import` or an earlier training; None for any other model."""
        found = None if self.gguf else self._find(MANIFEST_NAME)
        return Manifest.read(found.parent) if found else None

    def _find(self, name: str) -> Path | None:
        """A small file of a folder, or of a name of the hub; None if there is none."""
        folder = Path(self.path)
        if folder.is_dir():
            return folder / name if (folder / name).exists() else None
        try:
            fetched = hf_hub_download(self.path, name, local_files_only=not _reaches(self.path))
        # No such file, no such name, or no way there: transformers says which.
        except (OSError, ValueError):
            return None
        return Path(fetched)

    def _check_files(self) -> None:
        folder = Path(self.path)
        is_local = folder.is_dir()
        if not is_local and (folder.is_absolute() or folder.exists() or self.path.count("/") > 1):
            raise InvalidInput(f"{folder}: there is no such folder")
        config = self._find("config.json")
        self._refuse_adapter(folder / ADAPTER_CONFIG, config)
        if self._find("modules.json"):
            raise InvalidInput(
                f"{folder / 'modules.json'}: it is a model of embeddings (sentence-transformers), "
                "which writes no text: take the causal model that it was made from"
            )
        for name in _QUANTISED:
            if self._find(name):
                raise InvalidInput(f"{folder / name}: {_plain_weights('of some kind')}")
        if config is not None:
            _check_config(config, str(folder / "config.json"))
        elif is_local:
            found = ", ".join(sorted(path.name for path in folder.glob("*.gguf")))
            hint = f"; give the file: {found}" if found else ""
            raise InvalidInput(f"{folder}/config.json: there is none, so this is no model{hint}")

    def _refuse_adapter(self, adapter: Path, config: Path | None) -> None:
        if not self._find(adapter.name):
            return
        # Of a name of the hub the weights are not fetched to tell the two apart.
        if config is not None and _has_weights(adapter.parent):
            raise InvalidInput(
                f"{adapter}: an adapter lies next to a whole model: give a folder of one of them, "
                "the model"
            )
        raise InvalidInput(
            f"{adapter}: it is an adapter, not a model: `stepback import BASE --adapter "
            f"{adapter.parent if adapter.exists() else 'FOLDER'} --out FOLDER` merges it into its "
            "base"
        )

    def check_family(self) -> None:
        """Raise InvalidInput for a family that cannot be served."""
        try:
            config = AutoConfig.from_pretrained(self.path, **self.gguf)
        # transformers and gguf raise whatever a broken file makes them meet.
        except Exception as error:
            raise InvalidInput(f"{self.name}: config.json: {one_line(error)}") from error
        check_family(config, self.name)

    def open_tokenizer(self) -> Any:
        try:
            return AutoTokenizer.from_pretrained(self.path, **self.gguf)
        except Exception as error:  # transformers raises whatever a broken file makes it meet
            raise InvalidInput(f"{self.name}: the tokenizer: {one_line(error)}") from error

    def open_model(self, dtype: Any) -> PreTrainedModel:
        options: dict[str, Any] = dict(self.gguf)
        if self.gguf:
            options["quantization_config"] = GgufConfig(dequantize=True)
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                self.path, dtype=dtype, output_loading_info=True, **options
            )
        # RuntimeError: a matrix of another shape than the configuration says.
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise InvalidInput(f"{self.name}: the weights: {one_line(error)}") from error
        model, told = loaded
        # transformers makes random ones in their place, with a warning that nobody reads.
        if missing := sorted(told["missing_keys"]):
            raise InvalidInput(
                f"{self.name}: the weights: a model of this configuration has {len(missing)} more, "
                f"such as {missing[0]}: they are of another model, or quantised"
            )
        return model


@cache
def _reaches(name: str) -> bool:
    """Tell whether the hub answers for a name: to find out takes half a minute where it does not,
    so it is not asked for each file."""
    try:
        hf_hub_download(name, ADAPTER_CONFIG)
    except LocalEntryNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    return True


def _in_package(name: str) -> str:
    """The one GGUF file of an installed Python package."""
    # As pip and as Python name it.
    module = name.replace("-", "_")
    if not module.isidentifier():
        raise InvalidInput(f"{_PACKAGE}{name}: that is no name of a package")
    package = find_spec(module)
    if package is None or package.origin is None:
        install = f"pip install {module.replace('_', '-')}"
        raise InvalidInput(f"{_PACKAGE}{name}: no such package is installed: {install}")
    files = sorted(Path(package.origin).parent.rglob("*.gguf"))
    if len(files) != 1:
        raise InvalidInput(f"{_PACKAGE}{name}: it has {len(files)} GGUF files, and not one")
    return str(files[0])


def _check_config(config: Path, name: str) -> None:
    """Raise InvalidInput for weights that training cannot use, or code that is not run."""
    fields = _read(config)
    for part in ("quantization_config", "compression_config"):
        if fields.get(part):
            told = fields[part]
            kind = told.get("quant_method", "of some kind") if isinstance(told, dict) else told
            raise InvalidInput(f"{name}: {part}: {_plain_weights(kind)}")
    if "auto_map" in fields and fields.get("model_type") not in CONFIG_MAPPING:
        raise InvalidInput(f"{name}: auto_map: the model needs code of its own, which is not run")


def _plain_weights(kind: str) -> str:
    return (
        f"the weights are quantised ({kind}), and training is for plain ones: take the model that "
        "they were made from"
    )


def _has_weights(folder: Path) -> bool:
    found = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    return any(not path.name.startswith("adapter_model") for path in found)


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: cannot be read ({error})") from error
    if not isinstance(fields, dict):
        raise InvalidInput(f"{path}: is not a JSON object")
    return fields


def one_line(error: Exception) -> str:
    """Write an error of a library in one line, cut to 300 characters."""
    return " ".join(str(error).split())[:300]

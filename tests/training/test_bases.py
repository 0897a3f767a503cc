"""Base models: served in the end, or refused by name of the part before any weights are read."""

import ast
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from stepback_core.errors import InvalidInput
from stepback_core.trace import TraceCodec
from stepback_server.checkpoint import Checkpoint
from stepback_training.bases.families import NATIVE_ALONE, is_served, predicts_next_token
from stepback_training.bases.grammar import Wishes, adopt, checked_codec
from stepback_training.config import BaseModelChoice
from stepback_training.importing.cli import import_model
from stepback_training.importing.import_base import Import, import_base
from stepback_training.train.isolation import is_blind_to_neighbours
from stepback_training.train.model import (
    _from_base,  # pyright: ignore[reportPrivateUsage]
    embedding_rows,
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FRAME = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def byte_level(*special: str, normalizer: Any = None, before: Any = None, **options: Any) -> Any:
    """A small tokenizer of GPT-2's kind, with what may change a text before its bytes."""
    backend = Tokenizer(models.BPE())
    if normalizer is not None:
        backend.normalizer = normalizer
    of_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([before, of_bytes]) if before else of_bytes
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["12+3=15\n"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **({"eos_token": "<|endoftext|>"} | options)
    )


CAUSAL = [
    name if isinstance(name, str) else name[0]
    for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
]
REGISTERED = ("_TEXT_GENERATION_MODELS", "_TRANSFORMERS_SUPPORTED_MODELS")
ROWS = len(byte_level())
LLAMA: dict[str, Any] = dict(
    vocab_size=ROWS,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    bos_token_id=0,
    eos_token_id=0,
    pad_token_id=0,
)
NEOX: dict[str, Any] = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
GPT2: dict[str, Any] = dict(
    vocab_size=ROWS, n_embd=32, n_layer=1, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=0
)
BLOOM: dict[str, Any] = {k: v for k, v in GPT2.items() if k not in ("n_embd", "n_positions")}
BLOOM["hidden_size"] = 32
SERVED: dict[str, tuple[str, dict[str, Any], int]] = {
    "llama": ("llama", LLAMA, 128),
    "llama, tied": ("llama", LLAMA | {"tie_word_embeddings": True}, 128),
    "qwen2, padded rows": ("qwen2", LLAMA | {"vocab_size": ROWS + 64}, 128),
    "qwen3": ("qwen3", LLAMA | {"head_dim": 8}, 128),
    "mistral": ("mistral", LLAMA, 128),
    "gemma": ("gemma", LLAMA | {"head_dim": 8}, 128),
    "gemma3, text": ("gemma3_text", LLAMA | {"head_dim": 8}, 128),
    "phi": ("phi", LLAMA, 128),
    "olmo2": ("olmo2", LLAMA, 128),
    "gpt2": ("gpt2", GPT2, 128),
    "gpt-neox (pythia)": ("gpt_neox", NEOX, 128),
    "opt": ("opt", NEOX | {"ffn_dim": 64, "word_embed_proj_dim": 32}, 128),
    "falcon": ("falcon", NEOX, 128),
    "bloom": ("bloom", BLOOM, 2048),
}
ENCODERS = ("bert", "roberta", "xlm-roberta", "electra", "modernbert", "deberta-v2", "distilbert")
HEADLESS = (
    "LlamaModel",
    "LlamaForSequenceClassification",
    "LlamaForTokenClassification",
    "LlamaForRewardModel",
    "LlamaBidirectionalModel",
)
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt-neo": (
        "gpt_neo",
        dict(
            vocab_size=ROWS,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            max_position_embeddings=128,
        ),
        "architectures: vLLM does not serve GPTNeoForCausalLM",
    ),
    "codegen": ("codegen", dict(n_embd=32, n_layer=1, n_head=4, rotary_dim=4), "CodeGenForCausal"),
    "t5": ("t5", dict(d_model=32, num_layers=1), "is_encoder_decoder"),
    **{kind: (kind, {}, "vLLM does not serve") for kind in ("recurrent_gemma", "xlstm", "zamba")},
    "whisper, as a decoder": ("whisper", dict(is_encoder_decoder=False), "is_encoder_decoder"),
    "bart, as a decoder": ("bart", dict(is_encoder_decoder=False), "is_encoder_decoder"),
    **{kind: (kind, {}, f"model_type: {kind} is an encoder") for kind in ENCODERS},
    "bert, as a decoder": ("bert", dict(is_decoder=True), "model_type: bert is an encoder"),
    **{
        name: ("llama", LLAMA | {"architectures": [name]}, f"architectures: {name} has no head")
        for name in HEADLESS
    },
    "gemma3, images": ("gemma3", dict(text_config=LLAMA | {"head_dim": 8}), "text_config"),
}


def make_base(folder: Path, kind: str, shape: dict[str, Any], tokenizer: Any = None) -> Path:
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape))
    model.save_pretrained(folder)
    (tokenizer or byte_level()).save_pretrained(folder)
    return folder


def imported(base: Path, out: Path, **options: Any) -> Checkpoint:
    wishes = options.pop("wishes", Wishes())
    import_base(Import(str(base), out, "mine", wishes, options.pop("tasks", []), **options))
    return Checkpoint.open(out)


@pytest.mark.parametrize("family", SERVED)
def test_a_family_that_vllm_serves_is_opened_by_the_server(tmp_path: Path, family: str) -> None:
    kind, shape, context = SERVED[family]
    checkpoint = imported(make_base(tmp_path / "base", kind, shape), tmp_path / "model")
    assert checkpoint.context_tokens == context
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    manifest = checkpoint.manifest
    assert embedding_rows(model) == manifest.vocabulary_size == max(ROWS + 1, shape["vocab_size"])
    rows = model.get_input_embeddings().weight
    torch.testing.assert_close(rows[manifest.marker_id], rows[: manifest.marker_id].mean(0))
    assert model.config.architectures and is_served(model.config.architectures[0])


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_vllm_does_not_serve_is_refused_before_its_weights_are_read(
    tmp_path: Path, family: str
) -> None:
    kind, shape, part = REFUSED[family]
    AutoConfig.for_model(kind, **shape).save_pretrained(tmp_path)  # There are no weights at all.
    byte_level().save_pretrained(tmp_path)
    with pytest.raises(InvalidInput, match=part):
        _from_base(BaseModelChoice(path=str(tmp_path)))


def test_a_model_of_embeddings_is_refused_though_its_class_is_causal(tmp_path: Path) -> None:
    (empty_base(tmp_path) / "modules.json").write_text("[]")
    with pytest.raises(InvalidInput, match=r"modules.json: it is a model of embeddings"):
        _from_base(BaseModelChoice(path=str(tmp_path)))


LLAMA_FIELDS = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


@pytest.mark.parametrize(
    ("files", "part"),
    [
        ({"modules.json": []}, "modules.json: it is a model of embeddings"),
        ({"adapter_config.json": {}}, "adapter_config.json: it is an adapter"),
        ({"config.json": LLAMA_FIELDS, "adapter_config.json": {}}, "it is an adapter"),
        (
            {"config.json": LLAMA_FIELDS | {"quantization_config": {"quant_method": "gptq"}}},
            r"config.json: quantization_config: .*\(gptq\)",
        ),
        ({"config.json": {"model_type": "own", "auto_map": {}}}, "config.json: auto_map"),
        ({"config.json": {"model_type": "gpt_neo"}}, "does not serve GPTNeoForCausalLM"),
        ({}, "mine/model: config.json: "),
    ],
)
def test_a_name_of_the_hub_is_refused_as_a_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, Any], part: str
) -> None:
    """The hub is a cache without a network, as one that fetched these files left it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    commit = "0" * 40
    snapshot = tmp_path / "models--mine--model/snapshots" / commit
    (refs := tmp_path / "models--mine--model/refs").mkdir(parents=True)
    (refs / "main").write_text(commit)
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        (snapshot / name).write_text(json.dumps(content))
    with pytest.raises(InvalidInput, match=part):
        _from_base(BaseModelChoice(path="mine/model"))


def test_what_is_served_has_a_class_that_predicts_the_next_token() -> None:
    others = {name for name in CAUSAL if not predicts_next_token(name)}
    # One is half of an encoder's; the rest have images or sound, and a text model inside.
    nested = {name for name in others if name.endswith("ForConditionalGeneration")}
    assert others - nested == {"BertGenerationDecoder"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_vllm_serves_is_what_its_registry_says() -> None:
    found = find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("vLLM is not installed")
    registry = Path(found.origin).with_name("model_executor") / "models/registry.py"
    served: set[str] = set()
    for node in ast.parse(registry.read_text()).body:  # Read: to import it takes all of vLLM.
        if not isinstance(node, ast.Assign) or ast.unparse(node.targets[0]) not in REGISTERED:
            continue
        assert isinstance(node.value, ast.Dict)
        served.update(ast.literal_eval(key) for key in node.value.keys if key)
    assert len(served) > 100
    assert [name for name in CAUSAL if name in served and not is_served(name)] == []
    assert not NATIVE_ALONE - served


def empty_base(folder: Path, **fields: Any) -> Path:
    """A Llama's configuration and a tokenizer, with no weights that could be read."""
    AutoConfig.for_model("llama", **LLAMA).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


@pytest.mark.parametrize("name", ["quantization_config", "compression_config"])
@pytest.mark.parametrize("told", [{"quant_method": "awq", "bits": 4}, "awq"])
def test_quantised_weights_are_refused(tmp_path: Path, name: str, told: object) -> None:
    base = empty_base(tmp_path, **{name: told})
    with pytest.raises(InvalidInput, match=rf"{name}: .*\(awq\)"):
        _from_base(BaseModelChoice(path=str(base)))


@pytest.mark.parametrize(
    "beside", [(), ("config.json",), ("config.json", "adapter_model.safetensors")]
)
def test_an_adapter_is_no_base(tmp_path: Path, beside: tuple[str, ...]) -> None:
    for name in ("adapter_config.json", *beside):
        (tmp_path / name).write_text("{}")
    with pytest.raises(
        InvalidInput, match=r"adapter_config.json: it is an adapter.* --out FOLDER. merges"
    ):
        _from_base(BaseModelChoice(path=str(tmp_path)))
    with pytest.raises(InvalidInput, match=r"it is an adapter: .* --out FOLDER. merges"):
        Checkpoint.open(tmp_path)


def test_an_adapter_next_to_a_model_is_refused(tmp_path: Path) -> None:
    make_base(tmp_path, "llama", LLAMA)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InvalidInput, match="an adapter lies next to a whole model"):
        _from_base(BaseModelChoice(path=str(tmp_path)))


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\n", b"", None])
def test_weights_that_are_none_are_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    make_base(tmp_path, "llama", LLAMA)
    weights = tmp_path / "model.safetensors"
    weights.unlink()
    if content is not None:
        weights.write_bytes(content)
    with pytest.raises(InvalidInput, match="the weights: "):
        _from_base(BaseModelChoice(path=str(tmp_path)))


@pytest.mark.parametrize(
    "name", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"]
)
def test_weights_that_a_file_beside_them_calls_quantised_are_refused(
    tmp_path: Path, name: str
) -> None:
    (empty_base(tmp_path) / name).write_text("{}")
    with pytest.raises(InvalidInput, match=rf"{name}: the weights are quantised"):
        _from_base(BaseModelChoice(path=str(tmp_path)))


def test_weights_of_another_model_are_refused_and_none_is_made_up(tmp_path: Path) -> None:
    make_base(tmp_path, "llama", LLAMA)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.0.mlp.up_proj.weight"
    quantised = {f"{name}.qweight": weights[name].to(torch.int8)}
    save_file(weights | quantised, path, {"format": "pt"})
    _from_base(BaseModelChoice(path=str(tmp_path)))
    save_file({k: v for k, v in weights.items() if k != name}, path, {"format": "pt"})
    with pytest.raises(InvalidInput, match=rf"the weights: .*has 1 more, such as {name}"):
        _from_base(BaseModelChoice(path=str(tmp_path)))
    save_file(weights | {name: weights[name][:8].clone()}, path, {"format": "pt"})
    with pytest.raises(InvalidInput, match=r"the weights: "):
        _from_base(BaseModelChoice(path=str(tmp_path)))


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(InvalidInput, match=r"x.gguf: "):
        _from_base(BaseModelChoice(path=str(tmp_path / "x.gguf")))
    with pytest.raises(InvalidInput, match=r"stepback import .*x.gguf --out FOLDER"):
        Checkpoint.open(tmp_path / "x.gguf")


def test_a_folder_that_is_not_there_is_no_name_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere: there is no such folder"):
        _from_base(BaseModelChoice(path=str(tmp_path / "nowhere")))


def test_an_import_leaves_its_base_as_it_is(tmp_path: Path) -> None:
    make_base(tmp_path / "base", "llama", LLAMA)
    before = (tmp_path / "base/config.json").read_bytes()
    with pytest.raises(InvalidInput, match="it is the base"):
        imported(tmp_path / "base", tmp_path / "other/../base")
    assert (tmp_path / "base/config.json").read_bytes() == before


PARTS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{{ part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize(
    ("template", "frame", "end"),
    [
        # Templates of models that see images take a list of parts alone.
        (PARTS, FRAME, "<|im_end|>"),
        ({"default": CHATML, "tool_use": "{{ tools }}"}, FRAME, "<|im_end|>"),
        # One that would change each prompt, and two that are none: the plain frame.
        (CHATML.replace("message.content", "message.content | lower"), None, None),
        (CHATML.replace("message.content", "message.content | upper"), None, None),
        ("{% for %}", None, None),
        ("{{ raise_exception('no') }}", None, None),
    ],
)
def test_a_template_gives_the_frame_and_the_end_or_neither(
    template: Any, frame: str | None, end: str | None
) -> None:
    tokenizer = byte_level("<|im_start|>", "<|im_end|>", chat_template=template)
    grammar = adopt(tokenizer, Wishes()).grammar
    assert grammar.prompt_frame == (frame or "{prompt}\n")
    assert grammar.end == (end or "<|endoftext|>")


def metaspace() -> Any:
    """Llama 2's kind: a space before each text, and bytes for what it does not know."""
    pieces = ["<unk>", "</s>", "\u2581", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [*"0123456789abcdefgh+-="]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def test_a_tokenizer_that_changes_a_text_is_refused_for_any_data(tmp_path: Path) -> None:
    metaspace().save_pretrained(empty_base(tmp_path))
    with pytest.raises(InvalidInput, match=r"tokenizer: .* does not give back"):
        _from_base(BaseModelChoice(path=str(tmp_path)))


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": normalizers.Lowercase()},
        {"normalizer": normalizers.NFKC()},
        {"normalizer": normalizers.Strip()},
        {"normalizer": normalizers.Replace(Regex(" {2,}"), " ")},
        {"before": pre_tokenizers.Whitespace()},
    ],
    ids=["case", "compatibility", "ends", "runs of spaces", "all spaces"],
)
def test_a_tokenizer_that_changes_letters_or_spaces_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    byte_level(**change).save_pretrained(empty_base(tmp_path))
    with pytest.raises(InvalidInput, match=r"tokenizer: .* does not give back"):
        _from_base(BaseModelChoice(path=str(tmp_path)))


def test_a_tokenizer_that_composes_accents_is_taken() -> None:
    """Qwen and Pythia have such tokenizers; for a reader the text stays the same."""
    tokenizer = byte_level(normalizer=normalizers.NFC())
    checked_codec(adopt(tokenizer, Wishes()).grammar, tokenizer, "a base")


def test_what_a_tokenizer_adds_after_a_text_is_left_out() -> None:
    tokenizer = byte_level("<s>")
    start, end = tokenizer.convert_tokens_to_ids(["<s>", "<|endoftext|>"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <|endoftext|>", special_tokens=[("<s>", start), ("<|endoftext|>", end)]
    )
    grammar = adopt(tokenizer, Wishes()).grammar
    ids = TraceCodec.of(grammar, tokenizer).encode_prompt("1+2")
    assert tokenizer.decode(ids) == "<s>1+2\n"


def test_a_chat_models_frame_and_end_are_those_of_its_template(tmp_path: Path) -> None:
    # As of a base of Qwen: the turns end in another token than texts do.
    tokenizer = byte_level("<|im_start|>", "<|im_end|>", chat_template=CHATML)
    base = make_base(tmp_path / "base", "llama", LLAMA | {"vocab_size": len(tokenizer)}, tokenizer)
    checkpoint = imported(base, tmp_path / "model")
    grammar = checkpoint.manifest.grammar
    assert (grammar.prompt_frame, grammar.end) == (FRAME, "<|im_end|>")
    codec = checkpoint.codec
    rendered = FRAME.replace("{prompt}", "1+2")
    assert codec.encode_prompt("1+2") == tokenizer.encode(rendered, add_special_tokens=False)
    # No control token comes in by a prompt: neither of these has a role of BOS or EOS.
    assert codec.reserved_in_prompt("1<|im_start|>") == "<|im_start|>"
    # Training goes on with what the import wrote down, and may still be given another frame.
    _, _, again = _from_base(BaseModelChoice(path=str(tmp_path / "model")))
    assert again == grammar
    other = BaseModelChoice(path=str(base), prompt_frame="Q: {prompt}\n")
    assert _from_base(other)[2].prompt_frame == "Q: {prompt}\n"


def test_a_model_of_the_papers_own_code_keeps_its_marker(tmp_path: Path) -> None:
    tokenizer = byte_level("<backtrack>")
    base = make_base(tmp_path / "base", "llama", LLAMA | {"vocab_size": len(tokenizer)}, tokenizer)
    with pytest.raises(InvalidInput, match="stepback import"):
        Checkpoint.open(base)
    checkpoint = imported(base, tmp_path / "model", tasks=["countdown"])
    assert checkpoint.manifest.tasks == ["countdown"]
    before, after = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for folder in (base, tmp_path / "model")
    )
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name])


def test_a_separator_that_no_token_contains_becomes_one(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", LLAMA)
    checkpoint = imported(base, tmp_path / "model", wishes=Wishes(separator="\n\n"))
    codec = checkpoint.codec
    ids = [*codec.encode_step("def f():\n    return 1"), *codec.encode_step("f()")]
    assert codec.decode_steps(ids) == ["def f():\n    return 1", "f()"]
    assert len(codec.tokens.step_ends(ids)) == 2
    with pytest.raises(InvalidInput, match="name that one"):
        _from_base(BaseModelChoice(path=str(tmp_path / "model")))


def test_an_untied_head_has_the_logits_of_the_tied_one(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "llama", LLAMA | {"tie_word_embeddings": True})
    for untie in (False, True):
        imported(base, tmp_path / str(untie), untie=untie)
    tied, untied = (
        AutoModelForCausalLM.from_pretrained(tmp_path / str(untie)) for untie in (False, True)
    )
    assert not untied.config.tie_word_embeddings
    ids = torch.arange(20)[None]
    torch.testing.assert_close(tied(ids).logits, untied(ids).logits)


LEAKS = {
    "mamba": dict(vocab_size=100, hidden_size=32, num_hidden_layers=2, state_size=8),
    "falcon": NEOX,
    "bloom": BLOOM,
    "lfm2": LLAMA | {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
}
BLIND = {"llama": LLAMA, "gpt2": GPT2, "gpt_neox": NEOX, "qwen2": LLAMA, "gemma": LLAMA}


@pytest.mark.parametrize("kind", [*LEAKS, *BLIND])
def test_models_that_carry_a_state_past_a_sample_are_found_out(kind: str) -> None:
    torch.manual_seed(0)
    shape: dict[str, Any] = (LEAKS | BLIND)[kind]
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **shape))
    assert is_blind_to_neighbours(model) == (kind in BLIND)
    assert model.training


def test_the_command_says_what_it_took_and_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_base(tmp_path / "base", "llama", LLAMA)
    out = tmp_path / "mine"
    assert import_model([str(base), "--out", str(out), "--frame", r"Q: {prompt}\n"]) == 0
    printed = capsys.readouterr().out
    assert "'<backtrack>' (new)" in printed and r"'Q: {prompt}\n'" in printed
    assert Checkpoint.open(out).manifest.name == "mine"
    for arguments, part in (
        ([str(tmp_path / "none.gguf")], "there is no such file"),
        ([str(tmp_path)], "config.json: there is none"),
        ([str(base), "--end", "<nothing>"], "end: the tokenizer has no token"),
        ([str(base), "--marker", "\n"], "separator"),
    ):
        assert import_model([*arguments, "--out", str(tmp_path / "other")]) == 2
        refused = capsys.readouterr().err
        assert part in refused and refused.count("\n") == 1

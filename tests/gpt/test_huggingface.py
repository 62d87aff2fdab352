"""Test folders of transformers against transformers itself: logits, losses and gradients, in both directions."""

import json
import shutil
import struct
from contextlib import contextmanager

import numpy as np
import pytest

import tensorlite as tl
from gpt.checkpoint import CheckpointError, huggingface
from gpt.checkpoint.families import FAMILIES, family_of
from gpt.checkpoint.tensor_files import decode_floats, find_tensors
from gpt.config import ModelConfig
from gpt.inspect import attention_weights, logit_lens
from gpt.model import GPT

SIZES = {
    "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip
GPT2 = {"vocab_size": 61, "n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 4}


def scaled(kind, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1000.0, "factor": 4.0, **more}}


ORIGINAL = {"original_max_position_embeddings": 8}
MODELS = {
    "gpt2": ("gpt2", GPT2),
    "gpt2 with other options": (
        "gpt2", {**GPT2, "n_inner": 50, "activation_function": "gelu", "tie_word_embeddings": False},
    ),
    "llama": ("llama", SIZES),
    "llama, tied": ("llama", {**SIZES, "tie_word_embeddings": True, "rope_theta": 500.0, "rms_norm_eps": 1e-3}),
    "llama, narrow heads": ("llama", {**SIZES, "head_dim": 4, "num_key_value_heads": 1}),
    "linear": ("llama", {**SIZES, **scaled("linear")}),
    "dynamic": ("llama", {**SIZES, "max_position_embeddings": 8, **scaled("dynamic")}),
    "yarn": ("llama", {**SIZES, **scaled("yarn", **ORIGINAL)}),
    "yarn, scales": ("llama", {**SIZES, **scaled("yarn", **ORIGINAL, mscale=1.5, mscale_all_dim=0.5, beta_slow=2)}),
    "llama3": ("llama", {**SIZES, **scaled("llama3", **ORIGINAL, low_freq_factor=1.0, high_freq_factor=4.0)}),
    "mistral": ("mistral", {**SIZES, "sliding_window": 5}),
    "qwen2": ("qwen2", SIZES),
    "qwen2, windows": ("qwen2", {**SIZES, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "qwen3": ("qwen3", {**SIZES, "head_dim": 16}),
}  # fmt: skip


@contextmanager
def float64_throughout(torch):
    """Context manager in which transformers computes norms, softmax and rotary positions in float64.

    It asks for float32 there whatever type a model has, so that a float64 model is accurate to seven digits only.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch, "float", torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(default)


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch")
    found = pytest.importorskip("transformers")
    found.logging.set_verbosity_error()
    found.logging.disable_progress_bar()
    return found


@pytest.fixture(scope="module")
def references(transformers, tmp_path_factory):
    """Return, by name, a folder and a model of transformers in float64."""
    import torch

    result = {}
    for name, (kind, options) in MODELS.items():
        config = transformers.AutoConfig.for_model(kind, **options)
        torch.manual_seed(0)
        with float64_throughout(torch):
            model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").double().eval()
            with torch.no_grad():
                for p in model.parameters():  # Also biases, which begin as zeros.
                    p.copy_(torch.randn_like(p) * 0.2 + (p.ndim == 1))
        folder = tmp_path_factory.mktemp(kind)
        model.save_pretrained(folder)
        result[name] = folder, model
    return result


@pytest.fixture(params=MODELS)
def reference(request, references):
    return references[request.param]


IDS = np.random.default_rng(0).integers(0, 61, (2, 21))
TARGETS = np.pad(IDS[:, 1:], ((0, 0), (0, 1)), constant_values=-1)


def expected_of(model):
    """Return logits and loss of a model of transformers, after its backward pass."""
    import torch

    with float64_throughout(torch):
        model.zero_grad()
        done = model(torch.tensor(IDS), labels=torch.tensor(IDS))
        done.loss.backward()
    return done.logits.detach().numpy(), done.loss.item()


def test_logits_loss_and_gradients_are_those_of_transformers(reference):
    folder, theirs = reference
    logits, loss = expected_of(theirs)
    ours = huggingface.load_model(folder, dtype="float64")
    found, our_loss = ours(tl.tensor(IDS), tl.tensor(TARGETS))
    our_loss.backward()
    np.testing.assert_allclose(found.detach().numpy(), logits, rtol=0, atol=1e-10)
    assert our_loss.item() == pytest.approx(loss, abs=1e-10)
    family = FAMILIES[theirs.config.model_type]
    gradients = {name.removeprefix(family.prefix): p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        parts = [gradients[theirs].numpy() for theirs in family.names_of(name)]
        expected = np.concatenate([part.T if family.is_transposed(name) else part for part in parts])
        np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=0, atol=1e-9, err_msg=name)
    ours = huggingface.load_model(folder)
    assert ours.wte.weight.dtype == tl.float32
    assert not ours.training
    with tl.no_grad():
        found, our_loss = ours(tl.tensor(IDS), tl.tensor(TARGETS))
    np.testing.assert_allclose(found.numpy(), logits, rtol=0, atol=1e-5)
    assert our_loss.item() == pytest.approx(loss, abs=1e-5)


def test_attention_and_layers_are_those_of_transformers(reference):
    import torch

    folder, theirs = reference
    with float64_throughout(torch), torch.no_grad():
        done = theirs(torch.tensor(IDS[:1]), output_attentions=True, output_hidden_states=True)
        inner = theirs.transformer if theirs.config.model_type == "gpt2" else theirs.model
        last_norm = inner.ln_f if theirs.config.model_type == "gpt2" else inner.norm
        # The last hidden state has the norm already.
        streams = [*(last_norm(x) for x in done.hidden_states[:-1]), done.hidden_states[-1]]
        expected = np.stack([torch.softmax(theirs.lm_head(x), -1).numpy()[0] for x in streams])
    ours = huggingface.load_model(folder, dtype="float64")
    weights = np.stack([attention.numpy()[0] for attention in done.attentions])
    np.testing.assert_allclose(attention_weights(ours, IDS[0]), weights, rtol=0, atol=1e-7)
    lens = logit_lens(ours, IDS[0], 5)
    np.testing.assert_allclose(lens.probabilities, np.sort(expected, -1)[..., :-6:-1], rtol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(expected, lens.ids, -1), lens.probabilities, rtol=1e-6)


def test_transformers_loads_what_we_save(reference, transformers, tmp_path):
    import torch

    folder, theirs = reference
    huggingface.save_model(huggingface.load_model(folder, dtype="float64"), tmp_path)
    with float64_throughout(torch):
        back, info = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path, output_loading_info=True, attn_implementation="eager", dtype=torch.float64
        )
        assert type(back) is type(theirs)
        assert not any(info.values()), info
        with torch.no_grad():
            logits = back.eval()(torch.tensor(IDS)).logits.numpy()
    np.testing.assert_allclose(logits, expected_of(theirs)[0], rtol=0, atol=1e-10)


OWN = {
    "gpt2": {},
    "llama": {"position": "rope", "norm": "rms", "mlp": "swiglu"},
    "mistral": {"position": "rope", "norm": "rms", "mlp": "swiglu", "sliding_window": 4},
    "qwen2": {"position": "rope", "norm": "rms", "mlp": "swiglu", "sliding_window": 4, "full_layers": 1},
    "qwen3": {"position": "rope", "norm": "rms", "mlp": "swiglu", "qk_norm": True},
}


@pytest.mark.parametrize(("kind", "options"), OWN.items())
def test_models_of_ours_as_transformers_reads_them(kind, options, transformers, tmp_path):
    import torch

    model = GPT(ModelConfig(vocab_size=61, block_size=32, n_layer=2, n_head=4, n_embd=24, **options)).double().eval()
    for parameter in model.parameters():
        parameter.array[...] += np.random.default_rng(0).standard_normal(parameter.shape) / 4
    assert family_of(model.config) == kind
    huggingface.save_model(model, tmp_path)
    with tl.no_grad():
        expected = model(tl.tensor(IDS))[0].numpy()
    with float64_throughout(torch), torch.no_grad():
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path, attn_implementation="eager", dtype=torch.float64
        )
        np.testing.assert_allclose(theirs.eval()(torch.tensor(IDS)).logits.numpy(), expected, rtol=0, atol=1e-10)
    again = huggingface.load_model(tmp_path, dtype="float64")
    with tl.no_grad():
        np.testing.assert_allclose(again(tl.tensor(IDS))[0].numpy(), expected, rtol=0, atol=1e-12)


def test_models_that_no_family_has(tmp_path):
    model = GPT(ModelConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4, position="sinusoidal"))
    with pytest.raises(CheckpointError, match=r"no family .* has a model with norm = 'layer', position = 'sinusoidal'"):
        huggingface.save_model(model, tmp_path)
    config = ModelConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4, previous_tokens=2)
    with pytest.raises(CheckpointError, match=r"no family .* of previous tokens, .* has previous_tokens = 2"):
        huggingface.save_model(GPT(config), tmp_path)
    assert not list(tmp_path.iterdir())


# ---- files, without transformers ----------------------------------------------------------------


def write_safetensors(path, arrays):
    """Write arrays given as (type, shape, bytes) by name."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in arrays.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a small Llama."""
    options = {**TINY, **OWN["llama"], "tied": False}
    tl.manual_seed(0)
    huggingface.save_model(GPT(ModelConfig(**options)), tmp_path / "model")
    return tmp_path / "model"


TINY = {"vocab_size": 11, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 8}


def all_logits(folder):
    with tl.no_grad():
        return huggingface.load_model(folder)(tl.tensor([[1, 2, 3, 4]]))[0].numpy()


def parts(folder):
    specs = find_tensors(folder)
    content = (folder / "model.safetensors").read_bytes()
    return {name: (s.dtype, list(s.shape), content[s.start : s.stop]) for name, s in specs.items()}


def shard(folder):
    arrays = parts(folder)
    names = list(arrays)
    table = {}
    for number, group in enumerate((names[::2], names[1::2])):
        file = f"model-{number + 1:05}-of-00002.safetensors"
        write_safetensors(folder / file, {name: arrays[name] for name in group})
        table |= dict.fromkeys(group, file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))


def test_sharded_weights(folder):
    expected = all_logits(folder)
    shard(folder)
    np.testing.assert_array_equal(all_logits(folder), expected)
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "other.safetensors")
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"there is no file '.*model-00001-of-00002.safetensors'"):
        all_logits(folder)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_weights_in_half_precision(folder, dtype):
    arrays = parts(folder)
    for name, (_, shape, raw) in arrays.items():
        values = np.frombuffer(raw, np.float32)
        half = values.astype("<f2") if dtype == "F16" else (values.view(np.uint32) >> 16).astype("<u2")
        arrays[name] = dtype, shape, half.tobytes()
    expected = all_logits(folder)
    write_safetensors(folder / "model.safetensors", arrays)
    np.testing.assert_allclose(all_logits(folder), expected, atol=0.02)
    assert (all_logits(folder) != expected).any()


def test_small_floats():
    bits = np.array([0x3F80, 0xC020, 0x7F80, 0x0001], "<u2").view(np.uint8)
    np.testing.assert_array_equal(decode_floats(bits, "BF16"), np.float32([1, -2.5, np.inf, 2.0**-133]))
    codes = np.array([0x00, 0x38, 0xB8, 0x7E, 0x01, 0x7F, 0x81], np.uint8)
    np.testing.assert_array_equal(
        decode_floats(codes, "F8_E4M3"), np.float32([0, 1, -1, 448, 2.0**-9, np.nan, -(2.0**-9)])
    )
    codes = np.array([0x3C, 0xBC, 0x7B, 0x7C, 0x01, 0x7D], np.uint8)
    np.testing.assert_array_equal(
        decode_floats(codes, "F8_E5M2"), np.float32([1, -1, 57344, np.inf, 2.0**-16, np.nan])
    )


def test_small_floats_are_those_of_torch():
    torch = pytest.importorskip("torch")
    codes = torch.arange(256, dtype=torch.uint8)
    for ours, theirs in {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}.items():
        expected = codes.view(theirs).float().numpy()
        np.testing.assert_array_equal(decode_floats(codes.numpy(), ours), expected)


def test_names_with_and_without_the_prefix_and_with_buffers(tmp_path):
    model = GPT(ModelConfig(**TINY, bias=True))
    huggingface.save_model(model, tmp_path)
    expected = all_logits(tmp_path)
    arrays = parts(tmp_path)
    assert "transformer.h.0.attn.c_attn.weight" in arrays
    arrays = {name.removeprefix("transformer."): value for name, value in arrays.items()}
    arrays["h.0.attn.bias"] = "U8", [1, 1, 8, 8], bytes(64)
    arrays["h.1.attn.masked_bias"] = "F32", [], bytes(4)
    arrays["lm_head.weight"] = arrays["wte.weight"]
    write_safetensors(tmp_path / "model.safetensors", arrays)
    np.testing.assert_array_equal(all_logits(tmp_path), expected)


def test_a_tied_head_with_other_numbers_is_refused(folder):
    arrays = parts(folder)
    dtype, shape, raw = arrays["model.embed_tokens.weight"]
    arrays["lm_head.weight"] = dtype, shape, raw[:-1] + bytes([raw[-1] ^ 1])
    write_safetensors(folder / "model.safetensors", arrays)
    edit(folder, tie_word_embeddings=True)
    with pytest.raises(CheckpointError, match=r"lm_head.weight is not model.embed_tokens.weight.* Set tie_word_emb"):
        all_logits(folder)


def edit(folder, **changes):
    values = json.loads((folder / "config.json").read_text())
    for key, value in changes.items():
        values.pop(key, None) if value is ... else values.update({key: value})
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "model_type: expected one of gpt2, llama, mistral, qwen2, qwen3, got 'bert'"),
        ({"model_type": ...}, "model_type: expected one of .* got None"),
        ({"hidden_size": "8"}, "hidden_size: expected int, got '8'"),
        ({"hidden_size": True}, "hidden_size: expected int, got True"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: expected an integer from 1"),
        ({"num_hidden_layers": 10**9}, "model.n_layer = 1000000000: must be <= 10000"),
        ({"num_attention_heads": 3}, "model.n_head = 3 is not divisible by model.n_kv_head = 2"),
        ({"rms_norm_eps": -1}, "rms_norm_eps: expected a finite number above 0"),
        ({"hidden_act": "gelu"}, "hidden_act: only 'silu' or 'swish' is supported, got 'gelu'"),
        ({"attention_bias": True}, "attention_bias: only False is supported"),
        ({"rope_parameters": {"rope_type": "longrope"}}, "rope_type: only 'default' or .* got 'longrope'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor: it is missing"),
        ({"rope_parameters": {"rope_theta": "big"}}, "rope_theta: expected int or float, got 'big'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config: only weights that are not quantized"),
        ({"vocab_size": 12}, r"wrong shape: model.embed_tokens.weight \(11, 8\), where .* wte.weight \(12, 8\)"),
        ({"num_hidden_layers": 3}, "the tensor model.layers.2.input_layernorm.weight is missing"),
        ({"num_hidden_layers": 1}, "unexpected tensor 'model.layers.1"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings: expected bool, got 1"),
        ({"rms_norm_eps": 3}, "model.norm_eps = 3.0: must be < 1"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 9.0}}}, "rope_parameters: only the same for all blocks"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_slow": 1e-320}}, "rope_beta_slow.*>= 1e-09"),
        (
            {"model_type": "qwen2", "num_hidden_layers": 2**31 - 1, "layer_types": ["full_attention"]},
            "layer_types: only 2147483647 of 'full_attention'",
        ),
    ],
)
def test_wrong_configurations(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        all_logits(folder)
    assert str(folder) in str(caught.value)


def test_older_keys_of_rotary_positions(folder):
    edit(folder, rope_theta=123.0, rope_parameters=...)
    assert huggingface.load_model(folder).config.rope_theta == 123.0
    edit(folder, rope_scaling={"type": "linear", "factor": 2.0})
    config = huggingface.load_model(folder).config
    assert (config.rope_theta, config.rope_scaling, config.rope_factor) == (123.0, "linear", 2.0)
    # transformers takes rope_scaling where there are both.
    edit(folder, rope_parameters={"rope_type": "default", "rope_theta": 77.0})
    assert huggingface.load_model(folder).config.rope_scaling == "linear"
    edit(folder, rope_scaling=None)
    assert huggingface.load_model(folder).config.rope_theta == 77.0


def damage(folder, name):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    if name == "cut":
        path.write_bytes(content[:-9])
    elif name == "cut in the header":
        path.write_bytes(content[:50])
    elif name == "huge header":
        path.write_bytes(struct.pack("<Q", 2**40) + content[8:])
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "pointer":
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif name == "integers":
        arrays = parts(folder)
        _, shape, raw = arrays["model.norm.weight"]
        write_safetensors(path, {**arrays, "model.norm.weight": ("I32", shape, raw)})
    elif name == "overlap":
        path.write_bytes(content.replace(b'"data_offsets":[0,', b'"data_offsets":[4,'))
    else:
        path.unlink()
        if name == "pickled":
            (folder / "pytorch_model.bin").write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, "model.safetensors' is damaged: it is not a whole safetensors file") for name in
          ("cut", "cut in the header", "huge header", "empty", "overlap")),
        ("integers", "model.norm.weight: expected numbers of F64, F32, F16, .* got I32"),
        ("pointer", "model.safetensors' is a pointer of Git LFS, not the file itself. Run: git lfs pull"),
        ("missing", "has no model.safetensors and no model.safetensors.index.json"),
        ("pickled", "pytorch_model.bin': files of pickles can run any code, and are never read. Convert it"),
    ],
)  # fmt: skip
def test_wrong_files(folder, name, message):
    damage(folder, name)
    with pytest.raises(CheckpointError, match=message):
        all_logits(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "it is not JSON"),
        ("[]", r"expected an object, got \[\]"),
        ('{"weight_map": 3}', "weight_map: expected an object of file names, got 3"),
        ('{"weight_map": {"a": "../a.safetensors"}}', "expected safetensors files of its folder"),
        ('{"weight_map": {"a": "b.bin"}}', "expected safetensors files of its folder"),
    ],
)
def test_wrong_indices(folder, index, message):
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        all_logits(folder)


def test_loading_needs_the_memory_of_the_model_once(tmp_path):
    import tracemalloc

    huggingface.save_model(GPT(ModelConfig(**{**TINY, "n_embd": 256, "n_layer": 4})), tmp_path)
    size = (tmp_path / "model.safetensors").stat().st_size
    tracemalloc.start()
    huggingface.load_model(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 10**7
    assert peak < 1.2 * size

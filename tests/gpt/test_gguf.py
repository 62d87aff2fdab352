"""Test GGUF files: what we write, what the package gguf quantizes, and files that are damaged."""

import math

import numpy as np
import pytest

import tensorlite as tl
from gpt.checkpoint import CheckpointError, gguf, gguf_file
from gpt.config import ModelConfig
from gpt.model import GPT

package = pytest.importorskip("gguf")

SHAPE = {"vocab_size": 64, "block_size": 16, "n_layer": 2, "n_head": 4, "n_embd": 64}
LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu", "n_inner": 96}
IDS = np.random.default_rng(0).integers(0, 64, (2, 12))

MODELS = {
    "gpt2": {"gelu": "tanh", "bias": True},
    "gpt2 without biases": {"gelu": "tanh", "tied": False},
    "llama": LLAMA,
    "llama, shared keys": {**LLAMA, "n_kv_head": 2, "head_dim": 32, "tied": False, "rope_theta": 100.0},
    "llama, linear": {**LLAMA, "rope_scaling": "linear", "rope_factor": 2.0},
    "llama, yarn": {**LLAMA, "rope_scaling": "yarn", "rope_factor": 4.0, "rope_original_context": 8},
    "llama, yarn with a factor": {
        **LLAMA, "rope_scaling": "yarn", "rope_factor": 4.0, "rope_original_context": 8,
        "rope_attention_factor": 1.25 * (0.1 * math.log(4) + 1),  # The file has the factor 1.25, as float32.
    },
    "llama3, original context not given": {
        **LLAMA, "rope_scaling": "llama3", "rope_factor": 2.0, "rope_theta": 50.0, "block_size": 32,
    },
    "llama3": {**LLAMA, "rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_context": 16, "rope_theta": 50.0},
    "qwen2": {**LLAMA, "qkv_bias": True},
    "qwen3": {**LLAMA, "qk_norm": True, "n_kv_head": 1},
}


def make(**options):
    tl.manual_seed(0)
    model = GPT(ModelConfig(**{**SHAPE, **options})).eval()
    for parameter in model.parameters():  # Also biases, which begin as zeros.
        parameter.array[...] += np.random.default_rng(1).standard_normal(parameter.shape).astype(np.float32) / 5
    return model


def logits(model):
    with tl.no_grad():
        return model(tl.tensor(IDS))[0].numpy()


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS.keys())
def test_models_come_back_as_they_were(options, tmp_path):
    model = make(**options)
    gguf.save_model(model, tmp_path / "model.gguf")
    back = gguf.load_model(tmp_path / "model.gguf")
    assert not back.training
    np.testing.assert_allclose(logits(back), logits(model), rtol=0, atol=2e-6)
    double = gguf.load_model(tmp_path / "model.gguf", dtype="float64")
    np.testing.assert_allclose(logits(double), logits(model), rtol=0, atol=1e-4)
    assert double.wte.weight.dtype == tl.float64


# transformers ignores attention.key_length, so heads have the usual width. Of a gpt2 it reads no shape at all.
READ = {**MODELS, "llama, shared keys": {**LLAMA, "n_kv_head": 2, "tied": False, "rope_theta": 100.0}}


@pytest.mark.parametrize("name", ["llama", "llama, shared keys", "qwen2"])
def test_transformers_reads_them_alike(name, tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    transformers.logging.disable_progress_bar()
    model = make(**READ[name])
    gguf.save_model(model, tmp_path / "model.gguf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", attn_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        expected = theirs(torch.tensor(IDS)).logits.numpy()
    np.testing.assert_allclose(logits(model), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("weights", "error"), [("F16", 3e-2), ("Q8_0", 0.5)])
def test_smaller_types(weights, error, tmp_path):
    model = make(**LLAMA)
    gguf.save_model(model, tmp_path / "model.gguf", weights)
    file = gguf.open_gguf(tmp_path / "model.gguf")
    assert file.tensors["blk.0.attn_q.weight"].tensor_type.name == weights
    assert file.tensors["blk.0.attn_norm.weight"].tensor_type.name == "F32"
    difference = abs(logits(gguf.model_of(file)) - logits(model)).max()
    assert 0 < difference < error
    with pytest.raises(CheckpointError, match="expected weights of type F32, F16, Q8_0, got 'Q4_K'"):
        gguf.save_model(model, tmp_path / "model.gguf", "Q4_K")


def test_rows_that_are_no_multiple_of_32(tmp_path):
    gguf.save_model(make(**{**LLAMA, "n_inner": 40}), tmp_path / "model.gguf", "Q8_0")
    tensors = gguf.open_gguf(tmp_path / "model.gguf").tensors
    assert tensors["blk.0.ffn_down.weight"].tensor_type.name == "F16"
    assert tensors["blk.0.ffn_up.weight"].tensor_type.name == "Q8_0"


@pytest.mark.parametrize("kind", ["BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantized_weights(kind, tmp_path, monkeypatch):
    """Files of other programs have types that we do not write."""
    model = make(**LLAMA)
    monkeypatch.setattr(gguf, "WRITTEN", (kind,))
    monkeypatch.setitem(gguf.FILE_TYPES, kind, 0)
    gguf.save_model(model, tmp_path / "model.gguf", kind)
    back = gguf.load_model(tmp_path / "model.gguf")
    dtype = package.GGMLQuantizationType[kind]
    plain = model.h[1].mlp.c_proj.weight.numpy(force=True)
    expected = package.quants.dequantize(package.quants.quantize(plain, dtype), dtype)
    np.testing.assert_array_equal(back.h[1].mlp.c_proj.weight.numpy(force=True), expected)
    assert (expected != plain).any()


def test_types_that_have_no_numbers(tmp_path):
    write(tmp_path / "model.gguf", extra={"blk.0.attn_norm.weight": np.zeros(64, np.int32)})
    with pytest.raises(CheckpointError, match=r"blk.0.attn_norm.weight: weights of type I32 cannot be read"):
        gguf.load_model(tmp_path / "model.gguf")


def test_metadata_are_values_of_python(tmp_path):
    metadata = {"a": 3, "b": -3, "c": 0.5, "d": True, "e": "text", "f": ["x", "y"], "g": [1, 2], "h": []}
    gguf.save_model(make(**LLAMA), tmp_path / "model.gguf", metadata=metadata, name="mine")
    found = gguf.open_gguf(tmp_path / "model.gguf").metadata
    assert {key: found.get(key, []) for key in metadata} == metadata
    assert found["general.name"] == "mine"
    with pytest.raises(TypeError, match="GGUF: z: expected bool, int, float, str or a list"):
        gguf.save_model(make(**LLAMA), tmp_path / "other.gguf", metadata={"z": {}})
    assert not (tmp_path / "other.gguf").exists()


@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
def test_lists_are_those_of_the_plain_reader(order, tmp_path, monkeypatch):
    path, numbers = tmp_path / "lists.gguf", np.arange(6, dtype=np.float32).reshape(2, 3)
    writer = package.GGUFWriter(path, "llama", endianess=package.GGUFEndian[order])
    lists = {"text": ["x", "h\u00e9", ""], "one": ["y"], "int": [1, -2, 3], "float": [0.5, -1.5], "bool": [True, False]}
    for key, values in lists.items():
        writer.add_array(key, values)
    writer.add_array("nested", [[1, 2], [3, 4]])
    writer.add_tensor("numbers", numbers)
    writer.add_tensor("halves", numbers.astype(np.float16))
    writer.add_tensor("quantized", np.zeros((2, 34), np.uint8), raw_dtype=package.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = gguf.open_gguf(path)
    assert {key: file.metadata[key] for key in lists} == lists
    assert all(type(found) is type(value) for key in lists for found, value in zip(file.metadata[key], lists[key]))
    np.testing.assert_array_equal(file.read("numbers"), numbers)
    np.testing.assert_array_equal(file.read("halves"), numbers)
    if order == "BIG":
        with pytest.raises(CheckpointError, match=r"quantized: weights of type Q8_0 .* order of bytes"):
            file.read("quantized")
    else:
        np.testing.assert_array_equal(file.read("quantized"), np.zeros((2, 32)))
    monkeypatch.setattr(gguf_file, "reader_class", lambda: package.GGUFReader)
    assert gguf.open_gguf(path).metadata == file.metadata


@pytest.mark.parametrize("count", [100, 10**6, 2**62, 2**64 - 1])
@pytest.mark.parametrize("kind", ["texts", "numbers"])
def test_lists_that_are_too_long(kind, count, tmp_path):
    path = tmp_path / "lists.gguf"
    writer = package.GGUFWriter(path, "llama")
    writer.add_array("values", ["a", "b"] if kind == "texts" else [1, 2])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    head, key, tail = path.read_bytes().partition(b"values")
    path.write_bytes(head + key + tail[:8] + count.to_bytes(8, "little") + tail[16:])
    with pytest.raises(CheckpointError, match="it is not a whole GGUF file"):
        gguf.open_gguf(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "llama.cpp computes GPT-2's GELU with tanh"),
        ({**LLAMA, "previous_tokens": 1}, "no embeddings of previous tokens, and this model has previous_tokens = 1"),
        ({**LLAMA, "sliding_window": 4}, "sliding_window cannot be written"),
        ({**LLAMA, "rope_scaling": "dynamic", "rope_factor": 2.0}, "no dynamic scaling"),
        ({**LLAMA, "rope_scaling": "yarn", "rope_beta_slow": 2.0}, "beta_slow = 1, and this model has 32 and 2"),
        ({"position": "sinusoidal"}, "llama.cpp has no model with norm = 'layer', position = 'sinusoidal'"),
    ],
)
def test_models_that_llama_cpp_has_not(options, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        gguf.save_model(make(**options), tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


# ---- wrong files --------------------------------------------------------------------------------


def write(path, changes=(), extra=(), leave_out=()):
    """Write the file of a small Llama with other metadata or tensors."""
    model = make(**LLAMA)
    keys = {f"llama.{key}": value for key, value in gguf.config_keys(model.config, "llama").items()}
    writer = package.GGUFWriter(path, dict(changes).get("architecture", "llama"))
    for key, value in {**keys, **dict(changes)}.items():
        if value is not None and key != "architecture":
            gguf.add_value(writer, key, value)
    for name, array in {**gguf.written_tensors(model, "llama"), **dict(extra)}.items():
        if name not in leave_out:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "bert"}, "general.architecture: expected llama, gpt2, qwen2 or qwen3, got 'bert'"),
        ({"llama.block_count": None}, "llama.block_count: it is missing"),
        ({"llama.block_count": 3}, "the tensor blk.2.attn_norm.weight is missing"),
        ({"llama.block_count": 1}, "unexpected tensor 'blk.1"),
        ({"llama.block_count": "two"}, "llama.block_count: expected int, got 'two'"),
        ({"llama.attention.head_count": 0}, "llama.attention.head_count: expected an integer from 1"),
        ({"llama.attention.value_length": 8}, "llama.attention.value_length: only 16 is supported, got 8"),
        ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count: only 16 is supported, got 8"),
        ({"llama.rope.scaling.type": "longrope"}, "llama.rope.scaling.type: only 'none' or 'linear' or 'yarn'"),
        ({"llama.feed_forward_length": 95}, r"wrong shape: blk.0.ffn_gate.weight \(96, 64\), .*weight \(190, 64\)"),
        ({"llama.attention.layer_norm_rms_epsilon": -1.0}, "layer_norm_rms_epsilon: expected a finite number above 0"),
        ({"llama.expert_count": 4}, "llama.expert_count: only 0 is supported, got 4"),
        ({"llama.attention.causal": False}, "llama.attention.causal: only True is supported, got False"),
        ({"llama.attention.scale": 0.5}, "llama.attention.scale: only 0.0 is supported, got 0.5"),
    ],
)
def test_wrong_metadata(changes, message, tmp_path):
    write(tmp_path / "model.gguf", changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        gguf.load_model(tmp_path / "model.gguf")
    assert "model.gguf" in str(caught.value)


def test_wrong_tensors(tmp_path):
    path = tmp_path / "model.gguf"
    write(path, leave_out=["token_embd.weight"])
    with pytest.raises(CheckpointError, match=r"the tensor token_embd.weight is missing"):
        gguf.load_model(path)
    write(path, extra={"blk.0.attn_output.bias": np.zeros(64, np.float32)})
    with pytest.raises(CheckpointError, match=r"unexpected tensor 'blk.0.attn_output.bias'"):
        gguf.load_model(path)
    write(path, extra={"rope_freqs.weight": np.linspace(1, 9, 8, dtype=np.float32)})
    with pytest.raises(CheckpointError, match=r"rope_freqs.weight: only Llama 3's scaling"):
        gguf.load_model(path)


def test_tensors_that_overlap(tmp_path):
    path = tmp_path / "model.gguf"
    write(path)
    head, _, tail = path.read_bytes().partition(b"output_norm.weight")
    offset = 4 + 8 + 4  # after the number of dimensions, the dimension and the type
    path.write_bytes(head + b"output_norm.weight" + tail[:offset] + bytes(8) + tail[offset + 8 :])
    with pytest.raises(CheckpointError, match=r"model.gguf' is damaged: the tensors .* and .* overlap"):
        gguf.load_model(path)


def test_a_file_that_is_cut_or_is_another(tmp_path):
    path = tmp_path / "model.gguf"
    write(path)
    whole = path.read_bytes()
    for length in (4, 5, 9, 16, 23, 30, 100, 400, 1000, 2000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model.gguf' is damaged: it is not a whole GGUF file"):
            gguf.load_model(path)
    path.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="is not a GGUF file: it begins with b'not '"):
        gguf.load_model(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is not a GGUF file"):
        gguf.load_model(path)
    path.write_bytes(whole[:4] + (99).to_bytes(4, "little") + whole[8:])
    with pytest.raises(CheckpointError, match="version 99"):
        gguf.load_model(path)
    with pytest.raises(CheckpointError, match=r"cannot read .*missing.gguf': No such file"):
        gguf.load_model(tmp_path / "missing.gguf")
    with pytest.raises(CheckpointError, match="cannot read"):
        gguf.load_model(tmp_path)


# ---- what the package reads ---------------------------------------------------------------------


def test_version_2(tmp_path):
    path = tmp_path / "model.gguf"
    write(path)
    expected = logits(gguf.load_model(path))
    content = bytearray(path.read_bytes())
    content[4] = 2
    path.write_bytes(content)
    np.testing.assert_array_equal(logits(gguf.load_model(path)), expected)


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "TQ1_0", "MXFP4"])
def test_types_that_are_read_only(kind, tmp_path):
    """Each row is a block of random bytes with the scale 1/16."""
    dtype = package.GGMLQuantizationType[kind]
    count, size = package.GGML_QUANT_SIZES[dtype]
    rows = np.random.default_rng(0).integers(0, 256, (6, size), np.uint8)
    scale = np.array([1 / 16], np.float16).view(np.uint8)
    if kind != "MXFP4":  # its scale is an exponent
        places = {"Q2_K": (-4, -2), "Q3_K": (-2,), "Q6_K": (-2,), "TQ1_0": (-2,), "Q4_K": (0, 2), "Q5_K": (0, 2)}
        for place in places.get(kind, (0,)):
            rows[:, range(place, place + 2) if place >= 0 else range(size + place, size + place + 2)] = scale
    path = tmp_path / "one.gguf"
    writer = package.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", rows, raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = gguf.open_gguf(path).read("token_embd.weight")
    assert found.shape == (6, count)
    np.testing.assert_array_equal(found, package.quants.dequantize(rows, dtype))
    assert np.isfinite(found).all()
    assert found.any()

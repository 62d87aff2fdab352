"""Test models with quantized weights: their layers, how files become them, and what they refuse."""

import logging
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import gpt as program
import tensorlite as tl
from gpt import checkpoint, config, sources
from gpt.checkpoint import CheckpointError, gguf, huggingface
from gpt.checkpoint.quantization import check_quantize
from gpt.config import Config, ModelConfig
from gpt.generation import generate
from gpt.model import GPT, KVCache, QuantizedEmbedding, QuantizedLinear, quantize_model
from gpt.model import quantized as quantized_module
from gpt.model.quantized import QuantizationError, is_quantized, matrices, quantizable
from gpt.tokenizer.char import CharTokenizer
from tensorlite import nn
from tensorlite.quantized import QuantizedMatrix

package = pytest.importorskip("gguf")

SHAPE = {"vocab_size": 50, "block_size": 24, "n_layer": 2, "n_head": 4, "n_embd": 64}
LLAMA = {"position": "rope", "norm": "rms", "mlp": "swiglu", "n_inner": 96, "n_kv_head": 2}
MODELS = {
    "gpt2": {"gelu": "tanh", "bias": True},
    "untied": {"tied": False, "mlp": "relu2", "position": "sinusoidal"},
    "odd widths": {"n_embd": 40, "n_inner": 56},
    "llama": LLAMA,
    "llama, untied": {**LLAMA, "tied": False, "qk_norm": True, "qkv_bias": True, "sliding_window": 8},
}
IDS = np.random.default_rng(0).integers(0, 50, (2, 12))


def make(**options):
    tl.manual_seed(0)
    model = GPT(ModelConfig(**{**SHAPE, **options})).eval()
    for parameter in model.parameters():
        parameter.array[...] += np.random.default_rng(1).standard_normal(parameter.shape).astype(np.float32) / 8
    return model


def logits(model, ids=IDS, cache=None):
    with tl.no_grad():
        return model(tl.tensor(ids), cache=cache)[0].numpy()


def numbers(model):
    """Return the weights of the layers of a model by name, quantized or not, as float32."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear | QuantizedEmbedding):
            found[name] = module.matrix.dequantize()
        elif isinstance(module, nn.Linear | nn.Embedding):
            found[name] = module.weight.numpy(force=True)
    return found


def distance(a, b):
    """Return the root mean square of a - b, over that of b."""
    return np.sqrt(np.square(a - b).mean() / np.square(b).mean())


def assert_same(ours, expected):
    assert ours.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(ours[name], values, err_msg=name)


@pytest.mark.parametrize(("kind", "error"), [("int8", 0.06), ("int4", 0.4), ("q4_0", 0.5)])
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS.keys())
def test_a_quantized_model_predicts_as_its_rounded_weights_do(options, kind, error):
    plain, model = make(**options), make(**options)
    assert quantize_model(model, kind) is model
    layers = {name: type(module) for name, module in model.named_modules()}
    assert layers["wte"] is QuantizedEmbedding
    inner = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert {layers[f"h.1.{name}"] for name in inner} == {QuantizedLinear}
    assert layers.get("lm_head", QuantizedLinear) is QuantizedLinear
    assert nn.Linear not in layers.values()
    assert 0 < distance(logits(model), logits(plain)) < error
    for name, values in numbers(model).items():  # The same weights, without rounded activations.
        plain.get_submodule(name).weight.array[...] = values
    assert distance(logits(model), logits(plain)) < 0.06
    assert model.num_params() == plain.num_params()
    assert (model.device, model.dtype) == (plain.device, plain.dtype)


@pytest.mark.parametrize("name", ["gpt2", "llama, untied"])
def test_a_cache_changes_nothing(name):
    model = quantize_model(make(**MODELS[name]), "int8")
    cache, expected = KVCache(model, 2), logits(model)
    assert cache.keys[0].dtype == tl.float32
    parts = [logits(model, IDS[:, :7], cache), logits(model, IDS[:, 7:8], cache), logits(model, IDS[:, 8:], cache)]
    np.testing.assert_allclose(np.concatenate(parts, 1), expected, rtol=0, atol=1e-5 * abs(expected).max())
    ids = IDS[0, :5].tolist()
    for token in generate(model, IDS[0, :5], 6, temperature=0):
        assert token == logits(model, np.array([ids]))[0, -1].argmax()
        ids.append(token)


def test_the_head_of_an_untied_model_is_not_the_embedding():
    model = make(tied=False)
    head = model.lm_head.weight.numpy(force=True).copy()
    quantize_model(model, "int8")
    expected = QuantizedMatrix.quantize(head, "q8_0").dequantize()
    np.testing.assert_array_equal(model.lm_head.matrix.dequantize(), expected)
    assert (model.lm_head.matrix.quants != model.wte.matrix.quants).any()


def test_what_a_quantized_model_refuses(tmp_path):
    model = quantize_model(make(gelu="tanh", bias=True), "int4")
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model(tl.tensor(IDS))  # Nothing asks for gradients, so that none are missed.
    with pytest.raises(QuantizationError, match="computes no gradients, and its input requires them"):
        model.h[0].mlp.c_fc(tl.zeros(1, 64, requires_grad=True))
    with pytest.raises(QuantizationError, match="expected float32 on the CPU, got float64"):
        model.h[0].mlp.c_fc(tl.zeros(1, 64, dtype=tl.float64))
    with pytest.raises(IndexError, match="expected rows from 0 to 49, got 50 to 50"):
        model(tl.tensor([[50]]))
    with pytest.raises(tl.DTypeError, match="expected an index tensor of integers, got float32"):
        model(tl.tensor([[1.0]]))
    assert [model(tl.zeros(*shape, dtype=tl.int64))[0].shape for shape in ((0, 3), (2, 0))] == [(0, 3, 50), (2, 0, 50)]
    with pytest.raises(QuantizationError, match="the state of a model needs the weights in float32"):
        model.state_dict()
    with pytest.raises(QuantizationError, match="quantize='none'"):
        gguf.save_model(model, tmp_path / "model.gguf")
    with pytest.raises(QuantizationError, match="quantize='none'"):
        huggingface.save_model(model, tmp_path / "folder")
    assert not list(tmp_path.iterdir())
    before = model.wte.matrix
    assert quantize_model(model, "int8").wte.matrix is before
    for kind in ("int9", "Q8_0", 8, None, ["int8"]):
        with pytest.raises(QuantizationError, match="expected one of int8, int4, q8_0, q4_0, q4_1, got"):
            quantize_model(model, kind)
    with pytest.raises(QuantizationError, match=r"wte: expected weights in float32 on the CPU, got float64"):
        quantize_model(make().double(), "int8")
    broken = make()
    broken.h[1].mlp.c_fc.weight.array[3, 3] = np.inf
    with pytest.raises(QuantizationError, match=r"h.1.mlp.c_fc: quantize: expected finite numbers"):
        quantize_model(broken, "int8")
    assert not is_quantized(broken)  # Other layers have kept their weights, too.
    assert all(parameter.requires_grad for parameter in broken.parameters())
    for other in (nn.Linear(2, 3), None):
        with pytest.raises(QuantizationError, match="expected a model with layers in it, got"):
            quantize_model(other, "int8")


def test_numbers_that_a_kind_cannot_hold_are_reported_with_the_file(tmp_path):
    model = make(position="rope", norm="rms", mlp="swiglu")
    model.h[1].mlp.c_proj.weight.array[3, 3] = np.inf
    for module, path in ((gguf, tmp_path / "model.gguf"), (huggingface, tmp_path / "folder")):
        module.save_model(model, path)
        with pytest.raises(QuantizationError, match=rf"{path.name}': h.1.mlp.c_proj.weight: quantize: expected finite"):
            module.load_model(path, quantize="int4")


def test_weights_that_the_user_has_tied_stay_tied():
    model = make(tied=False)
    model.lm_head.weight = model.wte.weight
    before = model.num_params()
    quantize_model(model, "int4")
    assert model.lm_head.matrix is model.wte.matrix
    assert model.num_params() == before


def test_each_weight_is_freed_before_the_next_is_quantized(monkeypatch):
    model = make()
    weights = [weakref.ref(layer.weight) for layer in quantizable(model).values()]
    alive = []
    replace = quantized_module.replace_layer
    monkeypatch.setattr(quantized_module, "replace_layer", lambda *args: alive.append(living()) or replace(*args))

    def living():
        return sum(weight() is not None for weight in weights)

    quantize_model(model, "int8")
    assert alive == list(range(len(weights), 0, -1))


# ---- files --------------------------------------------------------------------------------------


def write(path, kind, options, monkeypatch, other=None):
    """Write a GGUF file with matrices of a kind. other: kinds of some tensors by their name."""
    monkeypatch.setattr(gguf, "WRITTEN", (kind,))
    monkeypatch.setitem(gguf.FILE_TYPES, kind, 0)
    arrays = gguf.written_tensors
    order = []

    def written_tensors(model, architecture):
        tensors = arrays(model, architecture)
        order[:] = tensors
        return tensors

    encode = gguf.encode
    monkeypatch.setattr(gguf, "written_tensors", written_tensors)
    monkeypatch.setattr(gguf, "encode", lambda array, kind: encode(array, (other or {}).get(order.pop(0), kind)))
    gguf.save_model(make(**options), path, kind)
    monkeypatch.undo()


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "llama, untied"])
def test_matrices_of_a_gguf_file_keep_their_bits(name, kind, tmp_path, monkeypatch, caplog):
    options = {**MODELS[name], "n_head": 2, "qk_norm": False, "qkv_bias": name.endswith("untied"), "sliding_window": 0}
    path = tmp_path / "model.gguf"
    write(path, kind, options, monkeypatch)
    model, plain = gguf.load_model(path, quantize="auto"), gguf.load_model(path)
    assert {matrix.kind for matrix in matrices(model)} == {kind.lower()}
    assert len(matrices(model)) == 9 + (not plain.config.tied)
    assert_same(numbers(model), numbers(plain))
    assert distance(logits(model), logits(plain)) < 0.06
    assert not is_quantized(plain)
    assert next(plain.parameters()).requires_grad
    assert not caplog.records
    ours = {"Q8_0": "int8", "Q4_1": "int4"}.get(kind)
    if ours:  # The same kind again is not rounded again.
        assert_same(numbers(gguf.load_model(path, quantize=ours)), numbers(plain))
    twice = gguf.load_model(path, quantize="int4" if kind == "Q8_0" else "int8")
    assert_same(numbers(twice), numbers(quantize_model(plain, "int4" if kind == "Q8_0" else "int8")))


def test_other_kinds_become_float32_with_one_line(tmp_path, monkeypatch, caplog):
    path = tmp_path / "model.gguf"
    write(path, "Q5_0", LLAMA, monkeypatch)
    with caplog.at_level(logging.WARNING):
        model = gguf.load_model(path, quantize="auto")
    assert not is_quantized(model)
    (record,) = caplog.records
    assert record.getMessage() == (
        "model.gguf: 9 quantized matrices become float32 (9 of Q5_0). Only Q8_0, Q4_0, Q4_1 are computed as they are "
        "in the file"
    )
    assert_same(numbers(model), numbers(gguf.load_model(path)))
    caplog.clear()
    other = {"token_embd.weight": "F16", "blk.0.attn_k.weight": "Q4_0", "blk.1.attn_output.weight": "Q5_1"}
    other |= {"blk.1.ffn_up.weight": "F16", "blk.1.ffn_gate.weight": "F16"}
    write(path, "Q8_0", LLAMA, monkeypatch, other)
    with caplog.at_level(logging.WARNING):
        model = gguf.load_model(path, quantize="auto")
    (record,) = caplog.records
    assert "2 quantized matrices become float32 (1 of Q5_1, 1 of Q8_0+Q4_0)" in record.getMessage()
    plain = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Embedding)]
    assert plain == ["wte", "h.0.attn.c_attn", "h.1.attn.c_proj", "h.1.mlp.c_fc"]
    assert_same(numbers(model), numbers(gguf.load_model(path)))
    assert generate(model, [1, 2], 3, seed=0)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_folder_is_quantized_while_it_is_read(name, tmp_path):
    pytest.importorskip("safetensors")
    huggingface.save_model(make(**MODELS[name]), tmp_path)
    plain = huggingface.load_model(tmp_path)
    for kind in ("int8", "int4"):
        expected = numbers(quantize_model(huggingface.load_model(tmp_path), kind))
        assert_same(numbers(huggingface.load_model(tmp_path, quantize=kind)), expected)
    assert_same(numbers(huggingface.load_model(tmp_path, quantize="auto")), numbers(plain))


def test_a_checkpoint_of_ours_is_quantized_while_it_is_read(tmp_path):
    pytest.importorskip("safetensors")
    plain = make(vocab_size=3)
    whole = Config(name="small", model=plain.config)
    letters, path = CharTokenizer("abc"), tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, config=whole, tokenizer=letters, step=1, model=plain)
    model = program.load(tmp_path, quantize="int8").model
    assert is_quantized(model)
    assert not model.training
    assert_same(numbers(model), numbers(quantize_model(plain, "int8")))
    assert not is_quantized(program.load(tmp_path, quantize="auto").model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int3"}, "load: expected quantize of none, auto, int8, int4, got 'int3'"),
        ({"quantize": None}, "load: expected quantize of none, auto, int8, int4, got None"),
        ({"quantize": "q8_0"}, "load: expected quantize of none"),
        ({"quantize": "int8", "dtype": "float64"}, "quantize = int8: .* not in float64 on cpu. Choose none"),
        ({"quantize": "int4", "device": "strict"}, "quantize = int4: .* not in float32 on strict. Choose none"),
    ],
)
def test_wrong_choices_are_errors_before_any_work(options, message, monkeypatch):
    import tensorlite.testing.strict  # noqa: F401  (it registers a device)

    monkeypatch.setattr(sources, "find", lambda source: pytest.fail("it was looked for"))
    with pytest.raises(CheckpointError, match=message):
        program.load("anything", **options)


def test_auto_is_none_where_nothing_can_stay_quantized():
    import tensorlite.testing.strict  # noqa: F401

    assert check_quantize("auto") == "auto"
    assert check_quantize("auto", dtype="float64") == check_quantize("auto", "strict") == "none"
    assert set(config.QUANTIZATIONS) == {"none", "auto", "int8", "int4"}


MEMORY = """
import sys
from pathlib import Path
import gguf.quants
import numpy as np
import tensorlite as tl
from gpt.checkpoint.gguf import load_model
tl.keep_freed_memory()
warm = np.ones((512, 512), np.float32); warm @ warm
# ru_maxrss would begin with that of the parent.
peak = lambda: 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
before = peak()
model = load_model(sys.argv[1], quantize=sys.argv[2])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_peak_memory_of_loading(tmp_path, monkeypatch):
    options = {**LLAMA, "vocab_size": 512, "n_embd": 512, "n_inner": 1536, "n_layer": 9, "tied": False}
    path, encode = tmp_path / "model.gguf", gguf.encode

    def zeros(array, kind):
        blocks = np.zeros((array.shape[0], array.shape[-1] // 32 * 34), np.uint8)
        return (blocks, package.GGMLQuantizationType.Q8_0) if array.ndim > 1 else encode(array, kind)

    monkeypatch.setattr(gguf, "encode", zeros)
    with nn.init.skip_init():
        model = GPT(ModelConfig(**{**SHAPE, **options}))
    gguf.save_model(model, path, "Q8_0")
    size, count = path.stat().st_size, model.num_params()
    for quantize, limit in (("auto", 1.3 * size), ("none", 1.1 * 4 * count)):
        command = [sys.executable, "-c", MEMORY, str(path), quantize]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        assert 0.5 * limit < int(done.stdout) < limit, (quantize, int(done.stdout) / limit)


def test_the_default_without_numba_is_none(monkeypatch):
    pytest.importorskip("click")
    from gpt.cli.options import chosen_quantize

    compiled = chosen_quantize(None)
    assert compiled in ("auto", "none")
    monkeypatch.setitem(sys.modules, "tensorlite.compiled", None)
    monkeypatch.delattr(tl, "compiled", raising=False)
    assert [chosen_quantize(given) for given in (None, "auto", "int8")] == ["none", "auto", "int8"]


AUTO, INT8 = ("--quantize", "auto"), ("--quantize", "int8")


def test_the_command_line(tmp_path):
    pytest.importorskip("safetensors")
    pytest.importorskip("click")
    from click.testing import CliRunner

    from gpt.cli import main

    model, path = make(vocab_size=3), str(tmp_path / "checkpoint.safetensors")
    whole = Config(name="small", model=model.config)
    checkpoint.save(path, config=whole, tokenizer=CharTokenizer("abc"), step=1, model=model)

    def run(*arguments):
        done = CliRunner().invoke(main, [*arguments, "--model", path])
        return done.exit_code, done.output

    plain, auto, rounded = (run("score", "abcabcab", *option) for option in ((), AUTO, INT8))
    assert plain == auto
    assert (plain[0], rounded[0]) == (0, 0)
    assert plain[1].split()[:1] == rounded[1].split()[:1]
    assert plain != rounded
    code, output = run("sample", "--prompt", "a", "--tokens", "3", "--temperature", "0", *INT8)
    assert (code, len(output.splitlines()[-1])) == (0, 4)
    code, output = run("sample", "--quantize", "int3")
    assert (code, "'int3' is not one of 'none', 'auto', 'int8', 'int4'" in output) == (2, True)
    code, output = run("score", "abc", "--device", "strict", *INT8)
    assert (code, "quantize = int8: quantized weights are computed in float32 on the CPU" in output) == (2, True)

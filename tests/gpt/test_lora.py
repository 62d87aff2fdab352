"""Test low-rank adaptation: its layers, its targets, and adapters on disk, which peft reads and writes, too."""

import json
import shutil
import warnings

import numpy as np
import pytest

pytest.importorskip("safetensors")

import tensorlite as tl
from gpt.checkpoint import CheckpointError, adapter, huggingface, lora_targets
from gpt.config import Config, ConfigError, LoraConfig, ModelConfig
from gpt.model import GPT
from gpt.model.lora import LoraError, LoraLinear, Part, add_lora, fold_lora, lora_layers, merge_lora, unmerge_lora
from gpt.model.quantized import quantize_model
from gpt.sources import load_with_adapter
from tensorlite import nn

GPT2 = {"vocab_size": 31, "block_size": 16, "n_layer": 2, "n_head": 4, "n_embd": 24, "bias": True, "gelu": "tanh"}
LLAMA = {
    "vocab_size": 31, "block_size": 16, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 24, "n_inner": 40,
    "norm": "rms", "position": "rope", "mlp": "swiglu",
}  # fmt: skip
SHAPES = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "qwen2": {**LLAMA, "qkv_bias": True, "tied": False},
    "qwen3": {**LLAMA, "qk_norm": True, "head_dim": 8},
    "none": {**LLAMA, "mlp": "relu2", "previous_tokens": 2},  # No family has it.
}


def model_of(kind, dtype=tl.float32):
    tl.manual_seed(5)
    model = GPT(ModelConfig(**SHAPES[kind])).to(dtype).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.array *= 8
    return model


def adapted(model, rank=3, seed=1, **options):
    """Give a model low-rank matrices that are not zero, and return the configuration of them."""
    lora = LoraConfig(rank=rank, **options)
    tl.manual_seed(seed)
    for layer in add_lora(model, lora_targets.choose(model.config, lora), rank, lora.scale, lora.dropout):
        for low_rank in layer.parts:
            nn.init.normal_(low_rank.lora_B, 0.0, 0.3)
    return lora


def logits(model):
    ids = np.random.default_rng(2).integers(0, 31, (2, 9))
    with tl.no_grad():
        return model(tl.tensor(ids))[0].numpy()


def close(a, b, tolerance):
    return np.abs(a - b).max() <= tolerance * np.abs(b).max()


# ---- layers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["", "q_proj,v_proj,up_proj", "c_fc", r".*\.1\..*"])
@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "none"])
def test_merge_and_unmerge(kind, targets):
    if kind != "qwen2" and "q_proj" in targets:
        targets = "attn.c_proj"
    model = model_of(kind, tl.float64)
    base, weights = logits(model), {name: p.numpy(force=True).copy() for name, p in model.named_parameters()}
    lora = LoraConfig(rank=3, targets=targets)
    add_lora(model, lora_targets.choose(model.config, lora), 3, lora.scale)
    assert np.array_equal(logits(model), base)  # B is zero.
    fold_lora(model)
    adapted(model, targets=targets)
    changed = logits(model)
    assert not close(changed, base, 0.01)
    merge_lora(model)
    merge_lora(model)  # The second time changes nothing.
    assert close(logits(model), changed, 1e-12)
    unmerge_lora(model)
    assert np.array_equal(logits(model), changed)
    for name, value in weights.items():
        assert np.array_equal(model.get_parameter(name).numpy(force=True), value), name  # the same bits
    fold_lora(model)
    assert close(logits(model), changed, 1e-12)
    assert [name for name, _ in model.named_parameters()] == list(weights)
    assert all(p.requires_grad for p in model.parameters())
    assert not list(lora_layers(model))


def test_a_merged_layer_in_float32():
    tl.manual_seed(0)
    base = nn.Linear(200, 96)
    layer = LoraLinear(base, [Part("k", 8, 40), Part("v", 40, 72)], 4, 2.0)
    for part in layer.parts:
        nn.init.normal_(part.lora_B, 0.0, 0.3)
    x, weight = tl.randn(5, 7, 200), base.weight.detach().clone()
    y = layer(x).detach()
    assert not close(y.numpy(), base(x).numpy(force=True), 0.01)
    assert np.array_equal(y[..., :8].numpy(), base(x)[..., :8].numpy(force=True))  # no part is there
    layer.merge()
    assert close(layer(x).numpy(force=True), y.numpy(), 1e-6)
    layer.unmerge()
    assert np.array_equal(layer.weight.numpy(force=True), weight.numpy())
    assert np.array_equal(layer(x).numpy(force=True), y.numpy())
    plain = layer.folded()
    assert type(plain) is nn.Linear
    assert close(plain(x).numpy(force=True), y.numpy(), 1e-6)


def test_only_the_low_rank_matrices_get_gradients():
    model = model_of("llama", tl.float64)
    adapted(model, targets="k_proj,gate_proj")
    ids = tl.tensor(np.random.default_rng(0).integers(0, 31, (2, 9)))
    model(ids, ids)[1].backward()
    assert {name.rpartition(".")[2] for name, p in model.named_parameters() if p.grad is not None} == {
        "lora_A", "lora_B",
    }  # fmt: skip
    # A matrix gets the gradient that the merged weight gives it: dB = scale * dW A^T, dA = scale * B^T dW.
    name, layer = next(iter(lora_layers(model)))
    (part,) = layer.parts
    A, B, rows = part.lora_A.numpy(force=True), part.lora_B.numpy(force=True), slice(part.part.start, part.part.stop)
    dA, dB, scale = part.lora_A.grad.numpy(), part.lora_B.grad.numpy(), layer.scale
    fold_lora(model)
    model(ids, ids)[1].backward()
    dW = model.get_parameter(f"{name}.weight").grad.numpy()[rows]
    assert close(dB, scale * dW @ A.T, 1e-10)
    assert close(dA, scale * B.T @ dW, 1e-10)


def test_dropout_zeroes_inputs_of_the_low_rank_matrices_in_training_only():
    model = model_of("gpt2")
    adapted(model, dropout=0.5)
    calm = logits(model)
    model.train()
    tl.manual_seed(0)
    assert not close(logits(model), calm, 0.01)
    model.eval()
    assert np.array_equal(logits(model), calm)


def test_layers_that_cannot_have_matrices():
    model = model_of("llama")
    plan = lora_targets.choose(model.config, LoraConfig(rank=2))
    adapted(model)
    with pytest.raises(LoraError, match=r"h.0.attn.c_attn: expected a linear layer .* got LoraLinear"):
        add_lora(model, plan, 2, 1.0)
    model = quantize_model(model_of("none"), "int8")
    with pytest.raises(LoraError, match=r"floating-point weights, got QuantizedLinear\. Load the model without quant"):
        add_lora(model, lora_targets.choose(model.config, LoraConfig(rank=2, targets="c_fc")), 2, 1.0)
    for function in (merge_lora, unmerge_lora, fold_lora):
        with pytest.raises(LoraError, match="nothing to"):
            function(model_of("llama"))


# ---- targets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "targets", "expected"),
    [
        ("llama", "", "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"),
        ("qwen2", "all-linear", "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"),
        ("llama", "c_attn", "q_proj k_proj v_proj"),
        ("llama", "self_attn.v_proj, up_proj", "v_proj up_proj"),
        ("llama", "c_proj", "o_proj down_proj"),
        ("llama", "mlp.c_proj", "down_proj"),
        ("llama", r".*self_attn\.(q|v)_proj", "q_proj v_proj"),
        ("llama", r"h\.[01]\.mlp\.c_fc", "gate_proj up_proj"),
        ("qwen2", "lm_head", "lm_head"),
        ("gpt2", "", "c_attn c_proj c_fc c_proj"),
        ("gpt2", "attn.c_proj", "c_proj"),
        ("none", "c_attn", "c_attn"),
    ],
)
def test_targets(kind, targets, expected):
    plan = lora_targets.choose(ModelConfig(**SHAPES[kind]), LoraConfig(rank=2, targets=targets))
    blocks = {0: [], 1: []}
    for layer, parts in plan.items():
        names = [part.name.rpartition(".")[2] for part in parts]
        if layer == "lm_head":
            assert names == expected.split()
            return
        blocks[int(layer.split(".")[1])] += names
    assert blocks[0] == blocks[1] == expected.split()


def test_a_list_may_have_spaces_and_a_comma_at_its_end():
    chosen = [
        lora_targets.choose(ModelConfig(**LLAMA), LoraConfig(rank=2, targets=targets))
        for targets in ("q_proj,c_fc", " q_proj , c_fc", "q_proj,c_fc, ")
    ]
    assert chosen[0] == chosen[1] == chosen[2]


def test_the_layers_of_one_block():
    plan = lora_targets.choose(ModelConfig(**LLAMA), LoraConfig(rank=2, targets="layers.1.mlp.gate_proj"))
    ((layer, (part,)),) = plan.items()
    assert (layer, part.start, part.stop) == ("h.1.mlp.c_fc", 0, 40)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("llama", {"targets": "q_prj"}, r"lora.targets = 'q_prj': 'q_prj': no linear layer .* Did you mean 'q_proj'\?"),
        ("llama", {"targets": "q_proj,qkv"}, r"'qkv': no linear layer has such a name\.? .*The names are c_attn, "),
        ("llama", {"targets": r".*query.*"}, r"'.\*query.\*': no linear layer"),
        ("llama", {"targets": "embed_tokens"}, "an embedding is not a linear layer"),
        ("llama", {"targets": "ln_1"}, "a norm is not a linear layer"),
        ("llama", {"targets": "lm_head"}, "the head is the token embedding"),
        ("gpt2", {"targets": "q_proj"}, "no linear layer has such a name"),
        ("llama", {"targets": "(q_proj"}, "not a regular expression"),
        ("llama", {"targets": "(" * 5000}, r"not a regular expression \(it is nested too deeply\)"),
        ("llama", {"targets": "[[q]"}, "no linear layer has such a name"),
        ("llama", {"rank": 13}, r"lora.rank = 13: larger than the smaller side of .*k_proj, 12 x 24. Take at most 12"),
        ("none", {"rank": 100}, r"larger than the smaller side of h.0.attn.c_attn, 48 x 24"),
    ],
)
def test_wrong_targets_and_ranks(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        lora_targets.choose(ModelConfig(**SHAPES[kind]), LoraConfig(**{"rank": 2, **options}))


@pytest.mark.parametrize(
    "options",
    [{"rank": 0}, {"rank": -1}, {"rank": 2.5}, {"rank": 2, "alpha": 0}, {"rank": 2, "alpha": -1.0}, {"alpha": 4.0},
     {"rank": 2, "dropout": 1.0}, {"rank": 2, "dropout": -0.1}, {"targets": "q_proj"}, {"rank": 2, "alpha": np.inf}],
)  # fmt: skip
def test_wrong_options(options):
    with pytest.raises(ConfigError, match=r"lora\."):
        LoraConfig(**options)


def test_the_scale_and_the_configuration_as_toml(tmp_path):
    assert [c.scale for c in (LoraConfig(rank=8), LoraConfig(rank=8, alpha=4), LoraConfig())] == [2, 0.5, 0]
    for overrides in ({}, {"lora.rank": 4, "lora.targets": "c_fc"}, {"lora.rank": 4, "lora.alpha": 2.5}):
        path = tmp_path / "x.toml"
        path.write_text(Config.load(overrides=overrides).to_toml())
        assert Config.load(path) == Config.load(overrides=overrides)


# ---- adapters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "targets"),
    [("gpt2", ""), ("llama", "q_proj,down_proj"), ("qwen3", r".*\.0\..*"), ("qwen2", "lm_head,c_fc"), ("none", "")],
)
def test_an_adapter_goes_to_disk_and_back(kind, targets, tmp_path):
    model = model_of(kind)
    base = adapter.fingerprint(model)
    lora = adapted(model, targets=targets, alpha=5.0)
    expected = logits(model)
    adapter.save_adapter(model, tmp_path / "run/adapter", lora, base, "the base")
    for folder in (tmp_path / "run/adapter", tmp_path / "run"):
        again = model_of(kind)
        adapter.apply_adapter(again, adapter.read_adapter(folder))
        assert close(logits(again), expected, 1e-6)


def test_the_fingerprint():
    model = model_of("llama")
    base = adapter.fingerprint(model)
    assert base == adapter.fingerprint(model_of("llama").to(tl.float64))
    model.h[1].ln_2.weight.array[3] += 1e-6
    assert base != adapter.fingerprint(model)


@pytest.fixture
def saved(tmp_path):
    model = model_of("llama")
    base = adapter.fingerprint(model)
    lora = adapted(model)
    adapter.save_adapter(model, tmp_path, lora, base, "the base")
    return tmp_path


def test_an_adapter_of_another_base_is_refused(saved):
    other = model_of("llama")
    other.wte.weight.array[0, 0] += 1
    before = logits(other)
    with pytest.raises(CheckpointError, match=r"the weights are not those that it was trained on.*another base 'the b"):
        adapter.apply_adapter(other, adapter.read_adapter(saved))
    assert np.array_equal(logits(other), before)
    assert not list(lora_layers(other))
    for changes, message in (
        ({"n_embd": 32}, r"q_proj.lora_A.weight: the model needs \(3, 32\), got \(3, 24\). .* 'the base'"),
        ({"n_layer": 1}, r"'model.layers.1.*': the model has no linear layer of this name"),
        ({"n_kv_head": 4}, r"k_proj.lora_B.weight: the model needs \(24, 3\), got \(12, 3\)"),
    ):
        config = ModelConfig(**{**LLAMA, **changes})
        with pytest.raises(CheckpointError, match=message):
            adapter.plan_of(adapter.read_adapter(saved), config)  # It needs no weights.
    with pytest.raises(CheckpointError, match="the model has no linear layer of this name"):
        adapter.plan_of(adapter.read_adapter(saved), ModelConfig(**GPT2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_rslora": True}, "use_rslora: adapters with this option are not supported, got True"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"an_option_of_tomorrow": 3}, "an_option_of_tomorrow"),
        ({"bias": "all"}, "bias: only 'none' is supported, got 'all'"),
        ({"peft_type": "IA3"}, "peft_type: only 'LORA' is supported"),
        ({"task_type": "SEQ_CLS"}, "task_type: only 'CAUSAL_LM' or None"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"r": 10**400}, "r: expected an integer"),
        ({"r": 0}, "r: expected an integer of at least 1, got 0"),
        ({"r": 4}, r"the model needs \(4, 24\), got \(3, 24\)"),
        ({"lora_alpha": -1}, "lora_alpha: expected a number above 0"),
        ({"lora_alpha": None}, "lora_alpha"),
    ],
)
def test_options_of_peft_that_are_refused(saved, changes, message):
    path = saved / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(CheckpointError, match=message):
        adapter.plan_of(adapter.read_adapter(saved), ModelConfig(**LLAMA))


def test_folders_without_an_adapter(saved, tmp_path):
    for path in (tmp_path / "nothing", tmp_path / "nothing/at all"):
        with pytest.raises(CheckpointError, match="there is no adapter in"):
            adapter.read_adapter(path)
    weights = saved / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        adapter.read_adapter(saved)
    weights.unlink()
    with pytest.raises(CheckpointError, match="there is no file"):
        adapter.read_adapter(saved)
    (saved / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="never read"):
        adapter.read_adapter(saved)


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (("q_proj.lora_B", "q_proj.lora_embedding_B"), "is of an embedding"),
        (("q_proj.lora_B", "q_proj.lora_magnitude_vector"), "is of something else"),
        (("layers.0.self_attn.q_proj.lora_B", "layers.0.self_attn.r_proj.lora_B"), "lora_[AB].weight is missing"),
        (("self_attn.q_proj", "self_attn.r_proj"), "r_proj': the model has no linear layer of this name"),
    ],
)
def test_wrong_tensors(saved, rename, message):
    from safetensors.numpy import load_file, save_file

    path = saved / "adapter_model.safetensors"
    save_file({name.replace(*rename): value for name, value in load_file(path).items()}, path)
    with pytest.raises(CheckpointError, match=message):
        adapter.plan_of(adapter.read_adapter(saved), ModelConfig(**LLAMA))


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (1e39, "too large for weights of float32"),
     (1e38, "too large for weights of float32")],
)  # fmt: skip
def test_numbers_that_are_not_finite_or_too_large(saved, value, message):
    from safetensors.numpy import load_file, save_file

    path = saved / "adapter_model.safetensors"
    tensors = {name: array.astype(np.float64) for name, array in load_file(path).items()}
    next(iter(tensors.values()))[0, 0] = value
    save_file(tensors, path)
    model = model_of("llama")
    with pytest.raises(CheckpointError, match=message):
        adapter.apply_adapter(model, adapter.read_adapter(saved))
    assert not list(lora_layers(model))


@pytest.mark.parametrize("shorter", ["base_model.model.", "model."])
def test_matrices_that_are_there_twice(saved, shorter):
    from safetensors.numpy import load_file, save_file

    path = saved / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, **{name.replace(shorter, "", 1): array for name, array in tensors.items()}}, path)
    with pytest.raises(CheckpointError, match="there twice, with and without"):
        adapter.plan_of(adapter.read_adapter(saved), ModelConfig(**LLAMA))


def test_a_merged_model_that_gets_another_dtype():
    model = model_of("llama")
    adapted(model)
    expected = logits(model)
    merge_lora(model)
    model.to(tl.float64)
    unmerge_lora(model)
    assert {parameter.dtype for parameter in model.parameters()} == {tl.float64}
    assert close(logits(model), expected, 1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft calls transformers' old name.
@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
def test_peft_reads_what_we_write_and_we_read_what_it_writes(kind, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = pytest.importorskip("peft")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    ids = np.random.default_rng(2).integers(0, 31, (2, 9))

    def theirs(model):
        with torch.no_grad():
            return model.eval()(torch.tensor(ids)).logits.numpy()

    ours, base, target = model_of(kind), tmp_path / "base", {"gpt2": "c_proj", "llama": "q_proj,up_proj"}
    huggingface.save_model(ours, base)
    fingerprint = adapter.fingerprint(ours)
    lora = adapted(ours, targets=target.get(kind, ""))
    adapter.save_adapter(ours, tmp_path / "ours", lora, fingerprint)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # peft warns of keys and names that it does not know.
        model = transformers.AutoModelForCausalLM.from_pretrained(base)
        model = peft.PeftModel.from_pretrained(model, str(tmp_path / "ours"))
    assert close(logits(ours), theirs(model), 1e-5)

    options = peft.LoraConfig(
        r=2, lora_alpha=3, target_modules=["c_attn", "c_fc"] if kind == "gpt2" else ["k_proj", "gate_proj", "o_proj"],
        init_lora_weights=False, fan_in_fan_out=kind == "gpt2", task_type="CAUSAL_LM",
    )  # fmt: skip
    torch.manual_seed(0)
    model = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), options)
    model.save_pretrained(tmp_path / "theirs")
    expected = theirs(model)
    again = huggingface.load_model(base)
    assert not close(logits(again), expected, 0.01)
    adapter.apply_adapter(again, adapter.read_adapter(tmp_path / "theirs"))
    assert close(logits(again), expected, 1e-5)


def test_the_model_is_not_read_for_an_adapter_that_cannot_fit(saved, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    huggingface.save_model(model_of("gpt2"), folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="the model has no linear layer of this name"):
        load_with_adapter(folder, saved)
    shutil.rmtree(folder)

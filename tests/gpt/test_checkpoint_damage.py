"""Test files that a disk, a transfer or another person has changed: each is one clear error, with the key."""

import copy
import hashlib
import json
import os
import zlib
from functools import cache

import numpy as np
import pytest

pytest.importorskip("safetensors")
from safetensors import safe_open
from safetensors.numpy import save_file

import tensorlite as tl
from gpt import checkpoint
from gpt.checkpoint import CheckpointError, container
from gpt.checkpoint.container import KEY
from gpt.config import Config
from gpt.model import GPT, build_model, parameter_shapes
from gpt.runs import LATEST, RunFolder
from gpt.tokenizer import CharTokenizer
from gpt.train import Trainer, configure_optimizer
from tensorlite import optim

SMALL = {"model.vocab_size": 5, "model.block_size": 4, "model.n_layer": 1, "model.n_head": 1, "model.n_embd": 4}
CONFIG = Config.load("shakespeare-char-cpu", {**SMALL, "data.val_fraction": 1e-05})


def combined(model):
    matrices = [p for p in model.parameters() if p.ndim == 2]
    return optim.CombinedOptimizer(
        optim.Muon(matrices, lr=0.1), optim.SGD([p for p in model.parameters() if p.ndim == 1], lr=0.1, momentum=0.9)
    )


OPTIMIZERS = {
    "adamw": lambda model: configure_optimizer(model, CONFIG.optim),
    "muon": lambda model: configure_optimizer(model, CONFIG.replace({"optim.optimizer": "muon"}).optim),
    "sgd": lambda model: optim.SGD(model.parameters(), lr=0.1),
    "momentum": lambda model: optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    "combined": combined,
}


def save(path, optimizer="adamw"):
    """Save a small model after a step. The vocabulary has a character that JSON escapes."""
    tl.manual_seed(0)
    model = build_model(CONFIG.model, "cpu", "float32")
    used = OPTIMIZERS[optimizer](model)
    optim.lr_scheduler.CosineWithWarmup(used, 100, 2000, 1e-4)
    x = tl.tensor([[0, 1, 2, 3]])
    model(x, x)[1].backward()
    used.step()
    state = {
        "batches": np.random.default_rng(0).bit_generator.state,
        "dropout": tl.get_rng_state(),
        "best": 2.5,
        "text": "0" * 64,
        "meter": {"losses": [], "seconds": 0.0},
        "evaluation_due": False,
    }
    checkpoint.save(
        path, config=CONFIG, tokenizer=CharTokenizer("\nabcë"), step=1, model=model, optimizer=used, state=state
    )


def content(path):
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()[KEY]), {name: file.get_tensor(name) for name in file.keys()}


def as_format_1(path):
    """Rewrite a checkpoint as the first version with checksums wrote it."""
    header, tensors = content(path)
    del header["sha256"], header["state"]["meter"], header["state"]["evaluation_due"]
    save_format_1(path, header, tensors)


def save_format_1(path, header, tensors):
    header = {"format": 1, **{key: value for key, value in header.items() if key not in ("format", "crc32", "check")}}
    header["crc32"] = {name: container.crc32(array) for name, array in tensors.items()}
    header["check"] = zlib.crc32(json.dumps(header).encode())
    save_file(tensors, path, metadata={KEY: json.dumps(header)})


# --- every byte


def set_byte(path, position, value):
    with path.open("r+b") as file:  # Writing the whole file takes ten times as long.
        file.seek(position)
        file.write(bytes([value]))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_flipped_bit_is_detected(tmp_path, optimizer, version):
    """Flip a bit in every byte before the numbers, the bit of each differs; and in a sample of the numbers."""
    path = tmp_path / LATEST
    save(path, optimizer)
    if version == 1:
        as_format_1(path)
    checkpoint.load(path, training=True)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    every = 1 if (optimizer, version) == ("muon", 2) else 7
    accepted = []
    for position in [*range(0, start, every), *range(start, len(whole), 101)]:
        set_byte(path, position, whole[position] ^ 1 << (position * 5 % 8))
        try:
            checkpoint.load(path)
        except CheckpointError:
            pass
        else:
            accepted.append((position, whole[max(0, position - 20) : position + 20]))
        set_byte(path, position, whole[position])
    assert accepted == []
    checkpoint.load(path)


def test_bits_that_keep_the_meaning_of_json_are_detected(tmp_path):
    """`1e-05` and `1E-05`, or the digits of an escape, mean the same; they are a change of the file all the same."""
    path = tmp_path / LATEST
    for version in (1, 2):
        save(path)
        if version == 1:
            as_format_1(path)
        whole = path.read_bytes()
        for old, new in [(b"1e-05", b"1E-05"), (b"00eb", b"00EB")]:
            assert whole.count(old) >= 1
            path.write_bytes(whole.replace(old, new, 1))
            with pytest.raises(CheckpointError, match="checksum"):
                checkpoint.load(path)


@pytest.mark.parametrize("version", [1, 2])
def test_a_tensor_without_a_checksum_is_detected(tmp_path, version):
    """A name in the list of checksums that no tensor has leaves a tensor unchecked."""
    path = tmp_path / LATEST
    save(path)
    header, tensors = content(path)
    if version == 2:
        name = "optimizer.0.exp_avg"
        whole = path.read_bytes()
        start = whole.index(b"crc32")
        path.write_bytes(whole[:start] + whole[start:].replace(name.encode(), b"optimizer.0.exp_avh"))
        with pytest.raises(CheckpointError, match="the checksum of its header does not match"):
            checkpoint.load(path, training=True)
    else:
        as_format_1(path)
        header, tensors = content(path)
        del header["crc32"]["optimizer.0.exp_avg"], header["check"]
        header["check"] = zlib.crc32(json.dumps(header).encode())
        save_file(tensors, path, metadata={KEY: json.dumps(header)})
        with pytest.raises(CheckpointError, match="is damaged: crc32: the tensors that have a checksum"):
            checkpoint.load(path, training=True)


@pytest.mark.parametrize("removed", [["sha256"], ["crc32"], ["sha256", "crc32"], ["check"], ["check", "crc32"]])
def test_a_file_without_checksums_is_of_another_program(tmp_path, removed):
    path = tmp_path / LATEST
    save(path)
    if "check" in removed:
        as_format_1(path)
    header, tensors = content(path)
    for key in removed:
        del header[key]
    save_file(tensors, path, metadata={KEY: json.dumps(header)})
    for load in (checkpoint.load, checkpoint.load_config, checkpoint.load_info):
        with pytest.raises(CheckpointError, match="has no checksums, so it is of another program"):
            load(path)


def test_the_first_format_with_checksums_loads(tmp_path):
    path = tmp_path / LATEST
    save(path)
    new = checkpoint.load(path, training=True)
    as_format_1(path)
    old = checkpoint.load(path, training=True)
    assert old.config == new.config
    assert old.step == new.step == checkpoint.load_info(path).step
    for name, value in old.model.state_dict().items():
        assert (value.numpy() == new.model.state_dict()[name].numpy()).all()
    for index, entries in old.optimizer["state"].items():
        assert entries.keys() == new.optimizer["state"][index].keys()


def test_a_file_that_is_replaced_while_it_is_opened_is_read_as_one(tmp_path, monkeypatch):
    import safetensors

    path = tmp_path / LATEST
    save(tmp_path / "new", "muon")
    save(path)
    original = safetensors.safe_open

    def replaced(*arguments, **options):
        if (tmp_path / "new").exists():
            (tmp_path / "new").replace(path)
        return original(*arguments, **options)

    monkeypatch.setattr(safetensors, "safe_open", replaced)
    loaded = checkpoint.load(path, training=True)
    assert "momentum_buffer" in loaded.optimizer["state"][0]


# --- odd values


@cache
def sound(folder):
    save(folder / "sound")
    return content(folder / "sound")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return the JSON and the tensors of a sound checkpoint."""
    return sound(tmp_path_factory.mktemp("sound"))


def paths_of(value, path=()):
    """Yield the path of every value in nested dicts and lists."""
    for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(entry, (dict, list)):
            yield from paths_of(entry, (*path, key))


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


ODD = {
    "null": None, "true": True, "negative": -1, "huge": 10**30, "larger": 10**400, "float": 0.5, "nan": float("nan"),
    "infinite": float("inf"), "minus": -0.5, "text": "text", "empty": "", "zero": "a\0b", "surrogate": "\ud800",
    "escape": "\x1b[3m1", "long": "x" * 100_000, "list": [], "nested": nested(400), "object": {}, "numbers": [1, 2],
}  # fmt: skip

# What a value may be all the same: a name, a path, a number that nothing else in the file decides, a default.
ACCEPTED = {
    "config.name": {"text", "long"},
    "config.data": {"object"}, "config.optim": {"object"}, "config.train": {"object"},
    "config.data.dataset": {"text", "empty", "escape", "long"}, "config.data.val_fraction": {"float"},
    "config.data.field": {"empty"},
    "config.model.dropout": {"float"}, "config.model.tied": {"true"}, "config.lora": {"object"},
    "config.model.norm_eps": {"float"}, "config.model.zero_init": {"true"},
    "config.model.attention_dropout": {"true"}, "config.model.init_std": {"float"},
    "config.lora.rank": {"null"}, "config.lora.alpha": {"null"}, "config.lora.targets": {"empty"},
    "config.optim.muon_lr": {"huge", "float"}, "config.optim.muon_momentum": {"float"},
    "config.optim.grad_clip": {"huge", "float"}, "config.train.spike_factor": {"huge", "float"},
    "config.train.ema_decay": {"null"}, "config.train.patience": {"null"},
    "config.train.out_dir": {"text", "empty", "escape", "long"},
    "config.train.activation_checkpointing": {"true"}, "config.train.compile": {"true"},
    "config.train.shard_optimizer": {"true"}, "tokenizer.vocab": {"escape"},
    "state.batches.state.state": {"huge"}, "state.dropout.cpu.state.state": {"huge"},
    "state.best": {"null", "huge", "float"}, "state.evaluation_due": {"true"},
    "state.meter.losses": {"list", "numbers"}, "state.meter.seconds": {"huge", "float"},
}  # fmt: skip


def load_and_resume(path):
    """Load a checkpoint as a run that resumes does, without its text."""
    loaded = checkpoint.load(path, training=True)
    trainer = Trainer(loaded.config, None, loaded.model, RunFolder(path.parent))
    with checkpoint.corruption_errors(path):
        trainer.load_state(loaded)


def changed(header, place, value):
    """Return a copy of nested dicts and lists with another value in one place."""
    result = copy.deepcopy(header)
    target = result
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    return result


def seal(path, header, tensors):
    """Write a checkpoint with any JSON, NaN too, and right checksums."""
    header = {**header, "sha256": container.ZEROS}
    save_file(tensors, path, metadata={KEY: json.dumps(header)})
    whole = path.read_bytes()
    head = whole[: 8 + int.from_bytes(whole[:8], "little")]
    path.write_bytes(whole.replace(container.ZEROS.encode(), hashlib.sha256(head).hexdigest().encode(), 1))


def test_odd_values_are_damage(tmp_path, original):
    """Put odd values in the place of every value in the JSON, with right checksums; each place gets some of them."""
    header, tensors = original
    path, wrong, kinds = tmp_path / LATEST, [], list(ODD)
    places = [place for place in paths_of(header) if place[0] not in ("crc32", "sha256", "format")]
    for i, place in enumerate(places):
        name = ".".join(map(str, place))
        for kind in [kinds[(i * 5 + k) % len(kinds)] for k in range(5)]:
            seal(path, changed(header, place, ODD[kind]), tensors)
            try:
                load_and_resume(path)
            except CheckpointError as error:
                # A parameter of the optimizer may be named by an option that decides it, such as betas by beta1.
                keys = [key.rstrip("12") for key in place if isinstance(key, str)]
                text = str(error)
                named = "is damaged: " in text and any(key in text for key in keys[-2:])
                # Without groups, a file is a model that was never trained, which has an error of its own.
                named |= (name, kind) == ("optimizer.param_groups", "list") and "no state of training" in text
                if not (named and len(text) < 1000 and text.isprintable()):
                    wrong.append((name, kind, text[:300]))
            else:
                if kind not in ACCEPTED.get(name, ()):
                    wrong.append((name, kind, "accepted"))
    assert wrong == []
    assert len(places) > 100


@pytest.mark.parametrize("place", [(), ("config",), ("state", "batches"), ("optimizer",), ("tokenizer",)])
def test_missing_and_unknown_keys_are_damage(tmp_path, original, place):
    header, tensors = original
    part = header
    for key in place:
        part = part[key]
    for key in part:
        if key in ("format", "sha256", "crc32") or place == ("config",):
            continue
        smaller = {k: v for k, v in part.items() if k != key}
        seal(tmp_path / LATEST, changed(header, place, smaller) if place else smaller, tensors)
        with pytest.raises(CheckpointError, match=f"is damaged: .*{key}.* is missing"):
            load_and_resume(tmp_path / LATEST)
    more = {**part, "odd\x1b": 1}
    seal(tmp_path / LATEST, changed(header, place, more) if place else more, tensors)
    with pytest.raises(CheckpointError, match=r"is damaged: .*odd\\+x1b"):
        load_and_resume(tmp_path / LATEST)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"step": 1', '"step": 1, "step": 1', "the key 'step' comes twice"),
        ('"has_uint32"', '"has_uint32": 1, "has_uint32"', "the key 'has_uint32' comes twice"),
        ('"best": 2.5', '"best": ' + "[" * 100_000 + "]" * 100_000, "it is nested too deeply"),
        ('"best": 2.5', '"best": ' + "9" * 5000, "state.best: expected a finite number of at least 0, got inf"),
        ('"best": 2.5', '"best": 1e999', "state.best: expected a finite number of at least 0, got inf"),
        ('"best": 2.5', '"best": NaN', "state.best: expected a finite number of at least 0, got nan"),
        ('"best": 2.5', '"best": 2.5.', "its JSON does not parse"),
        ('"step": 1,', '"step": 2001,', "step: 2001 of 2000 steps"),
    ],
)
def test_json_that_others_would_read_otherwise_is_damage(tmp_path, original, old, new, message):
    header, tensors = original
    text = json.dumps({**header, "sha256": container.ZEROS})
    assert text.count(old) >= 1
    save_file(tensors, tmp_path / LATEST, metadata={KEY: text.replace(old, new, 1)})
    whole = (tmp_path / LATEST).read_bytes()
    digest = hashlib.sha256(whole[: 8 + int.from_bytes(whole[:8], "little")]).hexdigest()
    (tmp_path / LATEST).write_bytes(whole.replace(container.ZEROS.encode(), digest.encode(), 1))
    with pytest.raises(CheckpointError, match="is damaged: ") as caught:
        load_and_resume(tmp_path / LATEST)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"n_embd": 2**20, "n_head": 1}, "wrong shape: wte.weight, expected (5, 1048576), got (5, 4)"),
        ({"n_layer": 10_000}, "missing: h.1."),
        ({"block_size": 2**31 - 1}, "wrong shape: wpe.weight"),
        ({"vocab_size": 2**62}, "wrong shape: wte.weight"),
        ({"position": "sinusoidal", "block_size": 2**31 - 1}, "config.model.block_size = 2147483647: too long"),
        ({"bias": True}, "missing: h.0."),
    ],
)
def test_a_claimed_size_is_compared_before_a_model_is_made(tmp_path, original, monkeypatch, claims, message):
    header, tensors = copy.deepcopy(original)
    header["config"]["model"].update(claims)
    seal(tmp_path / LATEST, header, tensors)
    monkeypatch.setattr("gpt.checkpoint.native.build_model", None)
    with pytest.raises(CheckpointError, match="is damaged: ") as caught:
        checkpoint.load(tmp_path / LATEST)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({"model.wte.weight": t["model.wte.weight"].astype(np.float16)}), "wrong type: model.wte"),
        (lambda t: t.update({"optimizer.0.exp_avg": t["optimizer.0.exp_avg"].astype(np.int8)}), "wrong type: opt"),
        (lambda t: t.update({"optimizer.00.exp_avg": t["optimizer.0.exp_avg"]}), "unexpected: optimizer.00.exp_avg"),
        (lambda t: t.update({"other": t["optimizer.0.exp_avg"]}), "unexpected: other"),
        (lambda t: t.update({"optimizer.99.exp_avg": t["optimizer.0.exp_avg"]}), "lists parameters [99]"),
        (lambda t: t.update({"optimizer.0.exp_avg": np.zeros((1, 1), np.float32)}), "exp_avg"),
        (lambda t: [t.pop(name) for name in list(t) if name.startswith("optimizer.0")], "step for parameter 0"),
    ],
)
def test_tensors_that_no_run_has_are_damage(tmp_path, original, change, message):
    header, tensors = copy.deepcopy(original)
    change(tensors)
    header["crc32"] = {name: container.crc32(array) for name, array in tensors.items()}
    seal(tmp_path / LATEST, header, tensors)
    with pytest.raises(CheckpointError, match="is damaged: ") as caught:
        load_and_resume(tmp_path / LATEST)
    assert message in str(caught.value)


@pytest.mark.parametrize("options", [{}, {"bias": True}, {"position": "sinusoidal"}, {"n_layer": 3, "vocab_size": 7}])
def test_the_computed_shapes_are_those_of_the_model(options):
    config = CONFIG.replace({f"model.{key}": value for key, value in options.items()}).model
    assert parameter_shapes(config) == {name: value.shape for name, value in GPT(config).state_dict().items()}
    assert list(parameter_shapes(config)) == list(GPT(config).state_dict())


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/full", "fifo", "folder"])
def test_what_is_not_a_file_is_one_error(tmp_path, name):
    path = tmp_path / name
    if name == "fifo":
        os.mkfifo(path)
    elif name == "folder":
        path.mkdir()
    for load in (checkpoint.load, checkpoint.load_config):
        with pytest.raises(CheckpointError, match=r"is not a checkpoint, but a (folder|pipe or a device)"):
            load(path)
    if name != "folder":
        with pytest.raises(ValueError, match="is not a safetensors file, but a pipe or a device"):
            tl.load(path)

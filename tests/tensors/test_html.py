"""Tensors and modules as HTML, which notebooks show: values, sizes, escapes, and what is moved from a device."""

import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

import tensorlite as tl
from tensorlite import nn


class Checked(HTMLParser):
    """A parser that raises AssertionError for tags that do not match, and keeps tables, texts and colours."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.cells, self.tables, self.text = [], [], [], ""
        self.feed(html)
        self.close()
        assert not self.open
        assert not re.search(r"color|background|<script|https?:", html)  # a dark page stays dark, nothing is loaded

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data


def parse(x):
    return Checked(x._repr_html_())


def test_a_number_a_vector_a_matrix():
    assert parse(tl.tensor(2.5)).text == "Tensor shape (), float32, cpu, 4 bytes2.5"
    assert parse(tl.tensor([1, -2])).tables == [[["0", "1"], ["1", "-2"]]]
    matrix = parse(tl.tensor([[1.5, float("nan")], [float("-inf"), 0.25]]))
    assert matrix.tables == [[["", "0", "1"], ["0", "1.5", "nan"], ["1", "-inf", "0.25"]]]
    assert "shape (2, 2), float32, cpu, 16 bytes" in matrix.text


def test_what_it_says_about_the_graph():
    x = tl.ones(2, requires_grad=True)
    assert "requires_grad=True" in parse(x).text
    assert "grad_fn=<mul>" in parse(x * 2).text
    assert parse(nn.Parameter(tl.ones(1))).text.startswith("Parameter shape (1,)")
    assert "grad" not in parse(x.detach()).text


def test_slices_of_more_dimensions():
    found = parse(tl.arange(12).reshape(2, 3, 2))
    assert found.tables[1] == [["", "0", "1"], ["0", "6", "7"], ["1", "8", "9"], ["2", "10", "11"]]
    assert "[0, :, :]" in found.text
    assert "[1, :, :]" in found.text
    assert len(parse(tl.zeros(3, 2, 1, 1)).tables) == 6


def test_a_large_tensor_is_elided_as_its_text_is():
    rows = parse(tl.arange(2000).reshape(100, 20)).tables[0]
    assert rows[0] == ["", "0", "1", "2", "…", "17", "18", "19"]
    assert rows[3] == ["2", "40", "41", "42", "…", "57", "58", "59"]
    assert rows[4][0] == "⋮"
    assert [row[0] for row in rows] == ["", "0", "1", "2", "⋮", "97", "98", "99"]
    assert parse(tl.arange(2000)).tables == [[["0", "1", "2", "…", "1997", "1998", "1999"]] * 2]
    deep = parse(tl.zeros(50, 2, 4, 5))
    assert re.findall(r"\[(\d+), (\d+), :, :\]", deep.text)[5:7] == [("2", "1"), ("47", "0")]
    assert deep.text.count("⋮") == 1
    assert len(parse(tl.zeros(20, 20, 20, 20)._repr_html_() and tl.zeros(20, 20, 20, 20)).tables) == 12


def test_it_obeys_the_options_of_printing():
    x = tl.tensor([[1.23456, 100.0], [0.5, 2.0]])
    with tl.printoptions(precision=2):
        assert parse(x).tables[0][1] == ["0", "1.23", "100."]
    with tl.printoptions(sci_mode=True, precision=1):
        assert parse(x).tables[0][1] == ["0", "1.2e+00", "1.0e+02"]
    with tl.printoptions(threshold=3, edgeitems=1):
        assert parse(tl.arange(9)).tables == [[["0", "…", "8"]] * 2]
        assert parse(x).tables[0][0] == ["", "0", "1"]
    with tl.printoptions(threshold=0, edgeitems=0):
        assert parse(tl.arange(9)).tables == [[["…"]] * 2]
        assert parse(tl.zeros(3, 4, 5)).tables == []
    with tl.printoptions(profile="full"):
        assert len(parse(tl.zeros(40, 30)).tables[0]) == 41


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64", "complex64"])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (3,), (2, 3), (0, 3), (2, 0, 3), (1, 2, 3), (40, 30), (2, 30, 30)])
def test_each_entry_is_that_of_the_text(dtype, shape):
    x = (tl.arange(max(1, tl.zeros(*shape).numel()))[: tl.zeros(*shape).numel()].reshape(shape) % 7).to(dtype)
    cells = [c for table in parse(x).tables for row in table[1:] for c in (row if len(shape) == 1 else row[1:])]
    cells = [c for c in cells if c not in ("", "…")]
    text = re.sub(r",?\s*\.\.\.,?", ",", repr(x).partition("(")[2].partition(", dtype")[0].rpartition("]")[0])
    expected = [entry for entry in re.split(r"[\s,\[\]]+", text) if entry]
    if shape:
        assert cells == expected


def test_formatters_of_numpy_with_commas():
    with np.printoptions(formatter={"float_kind": lambda x: f"<{x:.1f},{x:.2f}>"}):
        assert parse(tl.tensor([1.0, 2.0])).tables == [[["0", "1"], ["<1.0,1.00>", "<2.0,2.00>"]]]
        assert parse(tl.tensor(1.0)).text.endswith("<1.0,1.00>")


def test_views_expanded_and_in_reverse():
    x = tl.arange(6.0).reshape(2, 3)
    assert parse(x.T).tables[0][1] == ["0", "0.", "3."]
    assert parse(x.flip(0)).tables[0][1] == ["0", "3.", "4.", "5."]
    assert len(parse(tl.zeros(1).expand(10**9)).tables[0][0]) == 7
    assert len(parse(tl.zeros(1, 1, 1).expand(10**4, 10**5, 3)).tables) == 6


def test_only_what_is_shown_leaves_the_device(device, monkeypatch):
    from tensorlite.backends.registry import BACKENDS

    x = tl.arange(90_000.0).reshape(300, 300).to(device=device)
    xp, moved = BACKENDS[type(x.array)], []
    real = xp.to_numpy
    monkeypatch.setattr(xp, "to_numpy", lambda a: moved.append(a.size) or real(a))
    found = parse(x)
    assert moved == [36]
    assert found.tables[0][1][:4] == ["0", "0.0000e+00", "1.0000e+00", "2.0000e+00"]
    assert str(x.device) in found.text


def test_names_are_escaped():
    class Sub(tl.Tensor):
        pass

    Sub.__name__ = "<script>alert(1)</script>"
    assert "<script>" in parse(Sub([1.0])).text


def test_vmap_and_inference_mode():
    seen = []
    tl.vmap(lambda row: seen.append(row._repr_html_()) or row)(tl.ones(2, 3, requires_grad=True))
    assert [Checked(html).tables for html in seen] == [[[["0", "1", "2"], ["1.", "1.", "1."]]]] * 2
    with tl.inference_mode():
        assert parse(tl.ones(1)).tables


# ---- modules --------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 2)
        self.head = nn.Linear(2, 5)
        self.head.weight = self.table.weight
        self.again = self.head
        self.register_buffer("mask", tl.ones(2), persistent=False)


def rows_of(module):
    return {row[0]: row[1:] for table in parse(module).tables for row in table[1:]}


def test_a_module_is_a_tree_with_counts():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4))
    net[0].bias.requires_grad_(False)
    found = parse(net)
    assert found.text.startswith("Sequential 24 parameters, 20 trainable, 96 bytes0: Linear in_features=3")
    assert found.tables[0][1:] == [
        ["weight", "(4, 3)", "float32", "12", "48 bytes", "trainable"],
        ["bias", "(4,)", "float32", "4", "16 bytes", "frozen"],
    ]
    assert ["running_mean", "(4,)", "float32", "4", "16 bytes", "buffer"] in found.tables[1]
    html = net._repr_html_()
    assert html.count("<details open>") == 1
    assert html.count("<details>") == 2
    assert "<div>1: <b>ReLU</b> </div>" in html


def test_tied_parameters_count_once_and_modules_are_shown_once():
    found = parse(Tied())
    assert "Tied 15 parameters, 60 bytes" in found.text
    assert ["weight", "(5, 2)", "float32", "10", "40 bytes", "tied to table.weight"] in found.tables[-1]
    assert "again: Linear the same as head" in found.text
    assert rows_of(Tied())["mask"][-1] == "buffer, not in state_dict"


def test_containers():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(1, 1) for _ in range(3)])
            self.by_name = nn.ModuleDict({"<b>": nn.Tanh()})
            self.weights = nn.ParameterList([tl.ones(2), tl.ones(3)])
            self.none = None

    found = parse(Net())
    assert "Net 11 parameters, 44 bytes" in found.text
    assert "<b>: Tanh" in found.text
    assert found.text.count("Linear") == 3
    assert ["1", "(3,)", "float32", "3", "12 bytes", "trainable"] in found.tables[-1]


def test_a_module_that_contains_itself_and_one_without_init():
    loop = nn.Sequential(nn.Tanh())
    loop.add_module("self", loop)
    assert "the same as the whole module" in parse(loop).text

    class Bare(nn.Module):
        def __init__(self):
            pass

        def extra_repr(self):
            return '<img src=x onerror="1">'

    assert unescape(Bare()._repr_html_()).count("<img") == 1
    assert "<img" not in Bare()._repr_html_()


def test_quantized_and_low_rank_layers():
    pytest.importorskip("click")
    from gpt.config import ModelConfig
    from gpt.model import GPT, quantize_model
    from gpt.model.lora import LoraLinear, Part

    model = quantize_model(GPT(ModelConfig(vocab_size=64, block_size=8, n_layer=1, n_head=1, n_embd=32)), "int8")
    found = parse(model)
    assert f"GPT {model.num_params():,} parameters, none trainable" in found.text
    assert ["matrix", "(64, 32)", "q8_0", "2,048", "2.1 KiB", "quantized"] in found.tables[0]
    base = nn.Linear(4, 6).requires_grad_(False)
    lora = LoraLinear(base, [Part("all", 0, 6)], rank=2, scale=1.0)
    assert "LoraLinear in_features=4, out_features=6, bias=True 50 parameters, 20 trainable" in parse(lora).text
    lora.merge()
    assert "50 parameters, 20 trainable" in parse(lora).text

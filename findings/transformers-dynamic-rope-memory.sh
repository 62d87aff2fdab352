#!/bin/sh
# The logits of a text depend on what a model of transformers with dynamic rotary scaling has read before.
#
# Expected: a model in evaluation mode, without a cache, gives the same text the same logits.
# Found (transformers 5.24.0, PyTorch 2.13.0): with `rope_type: dynamic` the frequencies are recomputed where a text is
# longer than all before, and set back only where one is shorter than the original context. A text between the two
# lengths therefore keeps the frequencies of the longest text so far. A comparison of logits passes or fails by the
# order of its texts.
# In tensorlite the frequencies depend on the length of the text alone.
# Without a CPU build in the index, the installation downloads some gigabytes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 torch==2.13.0 transformers==5.24.0
cd "$folder"
venv/bin/python - <<'END'
import torch
import transformers

config = transformers.LlamaConfig(
    vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=8, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1000.0},
    bos_token_id=None, eos_token_id=None,
)
torch.manual_seed(0)
model = transformers.LlamaForCausalLM(config).eval()
with torch.no_grad():
    for p in model.parameters():
        p.copy_(torch.randn_like(p) / 3)
    text, longer, short = (torch.arange(n)[None] for n in (12, 24, 4))
    first = model(text, use_cache=False).logits
    again = model(text, use_cache=False).logits
    model(longer, use_cache=False)
    after_longer = model(text, use_cache=False).logits
    model(short, use_cache=False)
    after_short = model(text, use_cache=False).logits
print("transformers", transformers.__version__, "PyTorch", torch.__version__)
print("again:", (again - first).abs().max().item())
print("after a longer text:", (after_longer - first).abs().max().item())
print("after a short text:", (after_short - first).abs().max().item())
assert torch.equal(again, first)
assert (after_longer - first).abs().max() > 0.01
assert torch.equal(after_short, first)
END

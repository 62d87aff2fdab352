#!/bin/sh
# transformers answers `output_attentions=True` with an empty tuple.
#
# Expected: the attention weights of each layer, as the name says, or an error if the implementation has none.
# Found (transformers 5.24.0, PyTorch 2.13.0): GPT-2, Llama and GPT-NeoX, made as the documentation makes them, compute
# attention by a fused function, which has no weights. Then `attentions` is `()`, which is neither None nor an error: a
# loop over the layers does nothing. A line on the log says so for the first model only. BLOOM has no fused function and
# gives one tensor a layer. With `attn_implementation="eager"` the others do, too.
# tensorlite's `attention_weights` returns those of its fused attention, for every family that it loads.
# Without a CPU build in the index, the installation downloads some gigabytes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -qq --disable-pip-version-check numpy==2.4.6 torch==2.13.0 transformers==5.24.0
cd "$folder"
venv/bin/python - <<'END' 2>log
import torch
import transformers
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config, GPTNeoXConfig, LlamaConfig

sizes = {"vocab_size": 50, "bos_token_id": None, "eos_token_id": None}
small = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
configs = [
    GPT2Config(n_layer=2, n_head=2, n_embd=16, **sizes),
    LlamaConfig(**small, **sizes),
    GPTNeoXConfig(**small, **sizes),
    BloomConfig(n_layer=2, n_head=2, hidden_size=16, **sizes),
]
print("transformers", transformers.__version__, "PyTorch", torch.__version__)
for config in configs:
    lengths = []
    for options in ({}, {"attn_implementation": "eager"}):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, **options).eval()
        with torch.no_grad():
            attentions = model(torch.arange(6)[None], output_attentions=True).attentions
        assert type(attentions) is tuple
        lengths.append(len(attentions))
    print(f"{config.model_type}: layers with weights: {lengths[0]} by default, {lengths[1]} with eager attention")
    assert lengths == ([2, 2] if config.model_type == "bloom" else [0, 2])
END
grep "does not support" log
[ "$(grep -c "does not support" log)" = 1 ]

#!/bin/sh
# A Llama of transformers in float64 is accurate to seven digits.
#
# Expected: a model after `.double()` computes in float64, so that it is a reference for other implementations.
# Found (transformers 5.24.0, PyTorch 2.13.0): RMSNorm, the softmax of the attention, and the angles of the rotary
# positions ask for float32, whatever type the model has. The logits differ by about 1e-7 from those of the same code
# where float32 stands for float64.
# tensorlite's tests therefore exchange the name `torch.float32` while transformers computes the reference.
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
    max_position_embeddings=64, bos_token_id=None, eos_token_id=None,
)


def logits(exchanged):
    float32, as_float = torch.float32, torch.Tensor.float
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM._from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) / 3)
        weights = {name: p.double() for name, p in model.state_dict().items()}
        if exchanged:
            torch.float32 = torch.float = torch.float64
            torch.Tensor.float = torch.Tensor.double
        try:
            model = transformers.LlamaForCausalLM._from_config(config, attn_implementation="eager").double().eval()
            model.load_state_dict(weights)
            return model(torch.arange(40)[None], use_cache=False).logits
        finally:
            torch.float32 = torch.float = float32
            torch.Tensor.float = as_float


plain, exact = logits(False), logits(True)
difference = ((plain - exact).abs().max() / exact.abs().max()).item()
print("transformers", transformers.__version__, "PyTorch", torch.__version__, plain.dtype)
print("relative difference:", difference)
assert plain.dtype == exact.dtype == torch.float64
assert 1e-10 < difference < 1e-5
END

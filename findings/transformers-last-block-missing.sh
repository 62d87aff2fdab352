#!/bin/sh
# The output of a model's last block is not among the hidden states of transformers.
#
# Expected: with `output_hidden_states=True` a model of L blocks gives L + 1 tensors: the embedding, and what each block
# adds up to. A logit lens applies the final norm and the head to each of them, and its last row is the model's output.
# Found (transformers 5.24.0, PyTorch 2.13.0): the last tensor went through the final norm already, in GPT-2, Llama and
# OPT. So the output of the last block is missing, and a lens that treats all tensors alike normalizes the last one
# twice. It then predicts other tokens than the model at many positions, and no error tells it.
# tensorlite's lens takes the output of each block from the blocks themselves, and a test compares its last row with the
# logits of the model.
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
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

special = {"bos_token_id": None, "eos_token_id": None}
torch.manual_seed(0)
gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=50, **special))
llama = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, num_attention_heads=2, hidden_size=16, intermediate_size=32,
                                     vocab_size=50, **special))
opt = OPTForCausalLM(OPTConfig(num_hidden_layers=2, num_attention_heads=2, hidden_size=16, ffn_dim=32, vocab_size=50,
                               word_embed_proj_dim=16, pad_token_id=None, **special))
parts = {
    "GPT-2": (gpt2, gpt2.transformer.h[-1], gpt2.transformer.ln_f),
    "Llama": (llama, llama.model.layers[-1], llama.model.norm),
    "OPT": (opt, opt.model.decoder.layers[-1], opt.model.decoder.final_layer_norm),
}
print("transformers", transformers.__version__, "PyTorch", torch.__version__)
failures = []
for name, (model, last_block, norm) in parts.items():
    outputs = []
    last_block.register_forward_hook(
        lambda module, args, result: outputs.append(result[0] if isinstance(result, tuple) else result)
    )
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p))
        result = model.eval()(torch.arange(40)[None], output_hidden_states=True)
        states, head = result.hidden_states, model.get_output_embeddings()
        found = [torch.allclose(state, outputs[0]) for state in states]
        once, twice = head(states[-1]), head(norm(states[-1]))
    same = torch.allclose(once, result.logits, atol=1e-4)
    other = (twice.argmax(-1) != result.logits.argmax(-1)).sum().item()
    print(f"{name}: {len(states)} hidden states; one is the output of the last block: {any(found)}; head(last) is the "
          f"logits: {same}; head(norm(last)) has another likeliest token at {other} of 40 positions")
    failures += [name] if len(states) != 3 or any(found) or not same or not other else []
assert not failures, failures
END

"""Suggest the option or the command that a user meant."""

from collections.abc import Iterable
from difflib import get_close_matches

# What other programs call our options: nanoGPT, minGPT, Hugging Face, llama.cpp, and everyday words.
OPTION_ALIASES = {
    "--lr": "learning-rate learn-rate learning-rates rate max-lr peak-lr alpha step-size",
    "--min-lr": "min-learning-rate final-lr end-lr lr-min",
    "--muon-lr": "muon-learning-rate",
    "--warmup-steps": "warmup warm-up warmup-iters warmup-iterations lr-warmup",
    "--steps": "iters iterations max-iters max-steps num-steps n-steps train-steps epochs num-train-epochs "
               "num-epochs max-epochs",
    "--batch-size": "batch bs batchsize per-device-train-batch-size micro-batch-size train-batch-size",
    "--grad-accum": "gradient-accumulation gradient-accumulation-steps accumulation accum-steps grad-accum-steps",
    "--grad-clip": "clip clip-grad gradient-clip max-grad-norm clip-norm gradient-clipping",
    "--weight-decay": "wd decay l2",
    "--n-layer": "layers layer num-layers n-layers nlayers num-hidden-layers depth blocks num-blocks",
    "--n-head": "heads head num-heads n-heads nheads num-attention-heads attention-heads",
    "--n-embd": "embd n-embed embed embedding embedding-size embed-dim embedding-dim d-model dim n-dim hidden "
                "hidden-size hidden-dim width model-dim channels",
    "--block-size": "context context-length context-size ctx n-ctx seq-len sequence-length seq-length max-seq-len "
                    "max-length window block",
    "--dropout": "drop drop-rate dropout-rate dropout-prob",
    "--gelu": "activation act",
    "--position": "pos positions positional positional-embedding pos-embedding",
    "--optimizer": "optim opt",
    "--beta1": "adam-beta1 momentum",
    "--beta2": "adam-beta2",
    "--eps": "epsilon adam-epsilon",
    "--data": "dataset text file input corpus train-file train-data data-file data-path data-dir",
    "--tokenizer": "tokeniser tok token",
    "--bpe-vocab-size": "vocab vocab-size vocabulary vocabulary-size n-vocab bpe-size",
    "--val-fraction": "val val-split validation validation-split validation-fraction test-split valid-fraction "
                      "eval-fraction",
    "--eval-interval": "eval-every eval-steps evaluation-interval eval-freq evaluate-every val-interval",
    "--eval-batches": "eval-iters eval-iterations",
    "--final-eval-tokens": "eval-tokens final-eval eval-size",
    "--checkpoint-interval": "save-every save-interval save-steps checkpoint-every save-freq checkpoint-steps",
    "--on-spike": "skip-spikes spike-action loss-spike",
    "--spike-factor": "spike-threshold",
    "--ema-decay": "ema ema-rate swa averaging model-ema",
    "--patience": "early-stopping early-stop early-stopping-patience",
    "--min-delta": "early-stopping-threshold early-stopping-min-delta",
    "--log-layers": "log-gradients log-gradient watch log-every-layer record-layers",
    "--activation-checkpointing": "gradient-checkpointing recompute checkpoint-activations remat",
    "--shard-optimizer": "zero zero-1 zero-stage fsdp sharded-optimizer optimizer-sharding distributed-optimizer",
    "--compile": "jit torch-compile capture replay graph",
    "--sample-chars": "sample-length sample-size",
    "--seed": "random-seed manual-seed rng",
    "--dtype": "precision type",
    "--device": "gpu cuda cpu use-gpu",
    "--out": "output out-dir output-dir outdir save-dir dir folder logdir save",
    "--name": "run-name run experiment wandb-run-name",
    "--resume": "continue restart load resume-from resume-from-checkpoint",
    "--init-from": "init start-from from-pretrained pretrained finetune-from",
    "--profile": "profiler timing",
    "--lora-rank": "rank r lora lora-r lora-dim",
    "--lora-alpha": "scaling lora-scale lora-scaling",
    "--lora-targets": "targets target-modules lora-target-modules modules layers-to-adapt",
    "--adapter": "adapters lora-adapter lora-path peft",
    "--merge": "merge-adapter merged merge-and-unload",
    "--format": "data-format file-format",
    "--config": "conf cfg config-file preset",
    "--checkpoint": "ckpt model model-path run weights load checkpoint-path",
    "--prompt": "start text input prefix",
    "--tokens": "max-new-tokens max-tokens num-tokens n-tokens length n-predict max-length new-tokens",
    "--chars": "characters num-chars max-chars",
    "--temperature": "temp t",
    "--top-k": "topk k",
    "--top-p": "topp p nucleus",
    "--min-p": "minp",
    "--typical-p": "typical",
    "--repetition-penalty": "repeat-penalty rep-penalty",
    "--presence-penalty": "presence",
    "--frequency-penalty": "frequency freq-penalty",
    "--logit-bias": "bias",
    "--ban": "bad-words banned",
    "--num-samples": "n samples num-return-sequences n-samples best-of",
    "--num-beams": "beams beam-size beam-width",
    "--logprobs": "log-probs log-probabilities alternatives",
    "--json-schema": "json schema",
    "--regex": "pattern grammar",
    "--prompt-file": "input-file",
    "--draft": "draft-model model-draft md assistant assistant-model speculative speculate prompt-lookup lookup ngram",
    "--draft-tokens": "draft-max draft-n draft-length speculative-tokens num-speculative-tokens num-assistant-tokens",
    "--stop": "stop-text end until eos",
    "--file": "path input text-file",
    "--version": "v V",
}  # fmt: skip
COMMAND_ALIASES = {
    "train": "training fit learn run start pretrain resume continue",
    "finetune": "fine-tune tune lora sft adapt instruct qlora",
    "sample": "generate generation gen complete predict infer inference text",
    "score": "perplexity ppl logprob log-prob",
    "eval": "evaluate evaluation test validate val",
    "info": "size summary describe params parameters show",
    "presets": "preset list configs ls",
    "chat": "talk converse conversation interactive repl ask",
    "models": "model zoo known hub",
    "export": "convert save to-gguf to-huggingface publish",
    "attention": "attn heads heat-map heatmap attention-map",
    "gradients": "gradient grad grads activations norms",
    "prepare": "tokenize tokenise encode preprocess tokens dataset",
    "lens": "logit-lens logitlens layers",
    "embeddings": "embed embedding pca",
    "serve": "server api web page http openai webui ui",
    "explore": "explorer backward gradients graph autograd step-through visualize visualise",
    "runs": "experiments compare history log logs tensorboard plot curves",
}

# The similarity, from 0 to 1, from which on a name counts as a misspelling of another.
SIMILAR = 0.75


def meant(given: str, known: Iterable[str], aliases: dict[str, str]) -> str | None:
    """Return the known name that a user meant, or None: the name of an alias, or of the most similar name or alias."""
    names: dict[str, str] = {}
    for name in sorted(known):
        for word in (name, *aliases.get(name, "").split()):
            names.setdefault(plain(word), name)
    word = plain(given)
    if word in names:
        return names[word]
    near = get_close_matches(word, names, n=1, cutoff=SIMILAR) if len(word) <= 100 else []
    return names[near[0]] if near else None


def plain(name: str) -> str:
    """Return the name of an option or a command without dashes in front, a value, capitals and underscores."""
    return name.partition("=")[0].lstrip("-").lower().replace("_", "-")

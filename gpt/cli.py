"""The command line: train, sample, score, eval, info and presets.

Options for a configuration are made from the dataclasses in `gpt.config`. Anything heavy is imported by the
command that needs it, so that --help answers at once. A mistake of the user's is one `Error:` and exit
status 2; any other exception is a bug and keeps its traceback.

What this room asks of the others:
    gpt.train.train(config, resume=path_or_None)     trains, evaluates, writes and prints
    gpt.checkpoint.find(path)                        the checkpoint that a user's path means
    gpt.checkpoint.newest(folder)                    the newest checkpoint below a folder
    gpt.checkpoint.load_config(path)                 a checkpoint's Config, without its weights
    gpt.checkpoint.load(path, device)                .model, .tokenizer, .config, .step
    gpt.checkpoint.CheckpointError                   a checkpoint that is missing or broken
    gpt.sample.generate(model, ids, temperature=, top_k=, seed=)  yields token ids without end
    gpt.sample.log_probs(model, ids)                 log-probability in nats of ids[1:], each given those before
    gpt.train.evaluate(model, dataset, split)        mean loss in nats over the whole split
"""

import dataclasses
import logging
import math
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from gpt.config import DEFAULT_PRESET, SECTIONS, Config, ConfigError, options, preset_names

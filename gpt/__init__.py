"""A GPT on top of tensorlite: config, tokenizers, data, model, training and generation.

`python -m gpt --help` lists the commands. Importing this package imports nothing else.
"""

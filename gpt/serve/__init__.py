"""The server of `python -m gpt serve`: an API of OpenAI's form, and a page to talk to a model."""

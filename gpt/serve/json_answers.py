"""Answers in JSON: the grammar that `response_format` asks for."""

import json

from gpt.generation.grammar import Grammar, GrammarError
from gpt.serve.errors import ApiError
from gpt.serve.schemas import ResponseFormat
from gpt.serve.served import ServedModel

OBJECT = {"type": "object"}
MAX_GRAMMARS = 32


def grammar_of(served: ServedModel, form: ResponseFormat | None) -> Grammar | None:
    """Return what makes an answer follow a form; None if it may be any text. Raises ApiError 400."""
    if form is None or form.type == "text":
        return None
    schema = OBJECT
    if form.type == "json_schema":
        if form.json_schema is None:
            raise ApiError(
                400, "response_format.json_schema: expected a schema for the type 'json_schema', got nothing.",
                param="response_format",
            )  # fmt: skip
        schema = form.json_schema.schema_
    try:
        return cached_grammar(served, json.dumps(schema))
    except ModuleNotFoundError as error:
        raise ApiError(400, f"response_format: {error}.", param="response_format") from None
    except GrammarError as error:
        raise ApiError(400, f"response_format: {error}.", param="response_format") from None


def cached_grammar(served: ServedModel, schema: str) -> Grammar:
    """Return the grammar of a schema, which each text copies. To make one takes long for a large vocabulary."""
    grammar = served.grammars.get(schema)  # Other threads add and clear.
    if grammar is None:
        grammar = Grammar.json_schema(served.tokenizer, schema, end_token=served.tokenizer.eos_id)
        if len(served.grammars) >= MAX_GRAMMARS:
            served.grammars.clear()
        served.grammars[schema] = grammar
    return grammar

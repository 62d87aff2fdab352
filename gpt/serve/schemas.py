"""The bodies of requests to the API of OpenAI's form: their fields, types and ranges.

The description of a field is what an error says that was expected. Other fields are errors, because a field that is
ignored is a mistake that nobody notices.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

MAX_CHOICES = 128
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
StopText = Annotated[str, StringConstraints(max_length=1000)]  # The search for it takes longer for a long one.


def not_a_number(value: Any) -> Any:
    """Return a value. Raises ValueError for 0, which pydantic takes for False in a Literal."""
    if type(value) in (int, float):
        raise ValueError("a number is neither true nor false")
    return value


class Strict(BaseModel):
    """A base of objects in requests: JSON's types are not converted, and no other field is allowed."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class StreamOptions(Strict):
    """What a stream has in addition to the text."""

    include_usage: bool | None = Field(None, description="true or false")
    include_obfuscation: bool | None = Field(None, description="true or false")


class SamplingFields(Strict):
    """What the completions of a text and of a conversation have in common."""

    model: str | None = Field(None, description="the name of a model")
    temperature: float | None = Field(None, ge=0, le=2, description="a number from 0 to 2")
    top_p: float | None = Field(None, ge=0, le=1, description="a number from 0 to 1")
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="a number from -2 to 2")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="a number from -2 to 2")
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, description="an object with a number from -100 to 100 for each token id"
    )
    seed: int | None = Field(None, ge=-(2**63), lt=2**64, description="an integer of 64 bits")
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = Field(
        None, description="a text or a list of up to 4 texts, of 1,000 characters each at most"
    )
    n: int | None = Field(None, ge=1, le=MAX_CHOICES, description=f"an integer from 1 to {MAX_CHOICES}")
    stream: bool | None = Field(None, description="true or false")
    stream_options: StreamOptions | None = Field(None, description="an object such as {'include_usage': true}")

    # Options of ours, which OpenAI does not have.
    top_k: int | None = Field(None, ge=-1, lt=2**31, description="an integer from 1 on, or 0 or -1 for all tokens")
    min_p: float | None = Field(None, ge=0, le=1, description="a number from 0 to 1")
    typical_p: float | None = Field(None, gt=0, le=1, description="a number above 0, and 1 at most")
    repetition_penalty: float | None = Field(None, ge=0.01, le=100, description="a number from 0.01 to 100")

    # Fields that say nothing about the text.
    user: str | None = Field(None, description="a text")
    metadata: dict[str, str] | None = Field(None, description="an object of texts")
    store: Annotated[Literal[False], BeforeValidator(not_a_number)] | None = Field(
        None, description="false, because nothing is stored"
    )
    service_tier: Literal["auto", "default"] | None = Field(None, description="'auto' or 'default'")
    safety_identifier: str | None = Field(None, description="a text")
    prompt_cache_key: str | None = Field(None, description="a text")


class CompletionRequest(SamplingFields):
    """The body of a request for a text that continues a prompt."""

    prompt: str | list[str] | list[TokenId] | list[list[TokenId]] | None = Field(
        None, description="a text, a list of texts, a list of token ids, or a list of such lists"
    )
    max_tokens: int | None = Field(None, ge=0, lt=2**31, description="an integer from 0 on")
    best_of: int | None = Field(None, ge=1, le=20, description="an integer from 1 to 20")
    echo: bool | None = Field(None, description="true or false")
    logprobs: int | None = Field(None, ge=0, le=5, description="an integer from 0 to 5")
    suffix: Literal[""] | None = Field(None, description="no text, because a model cannot fill in the middle")


class TextPart(Strict):
    """A part of the content of a message."""

    type: Literal["text"] = Field(description="'text', because a model reads nothing else")
    text: str = Field(description="a text")


class Message(BaseModel):
    """A message of a conversation. The fields that an answer has, which clients send back, may be empty."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="'system', 'developer', 'user' or 'assistant'"
    )
    content: str | list[TextPart] = Field(description="a text, or a list of parts such as {'type': 'text', 'text': ''}")
    name: str | None = Field(None, description="a text")
    refusal: None = Field(None, description="null")
    audio: None = Field(None, description="null")
    function_call: None = Field(None, description="null, because a model calls no tools")
    annotations: Annotated[list[Any], Field(max_length=0)] | None = Field(None, description="an empty list")
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = Field(
        None, description="an empty list, because a model calls no tools"
    )


class JsonSchema(Strict):
    """A JSON schema that an answer follows."""

    name: str | None = Field(None, description="a text")
    description: str | None = Field(None, description="a text")
    schema_: dict[str, Any] = Field(alias="schema", description="a JSON schema, which is an object")
    strict: bool | None = Field(None, description="true or false")


class ResponseFormat(Strict):
    """The form of an answer: any text, a JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"] = Field(description="'text', 'json_object' or 'json_schema'")
    json_schema: JsonSchema | None = Field(None, description="an object with a name and a schema")


class ChatRequest(SamplingFields):
    """The body of a request for the next message of a conversation."""

    messages: Annotated[list[Message], Field(min_length=1)] = Field(description="a list of one message at least")
    max_tokens: int | None = Field(None, ge=1, lt=2**31, description="an integer from 1 on")
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31, description="an integer from 1 on")
    logprobs: bool | None = Field(None, description="true or false")
    top_logprobs: int | None = Field(None, ge=0, le=20, description="an integer from 0 to 20")
    response_format: ResponseFormat | None = Field(None, description="an object such as {'type': 'json_object'}")

    tools: Annotated[list[Any], Field(max_length=0)] | None = Field(
        None, description="an empty list, because the models of this server call no tools"
    )
    functions: Annotated[list[Any], Field(max_length=0)] | None = Field(
        None, description="an empty list, because the models of this server call no functions"
    )
    tool_choice: Literal["none", "auto"] | None = Field(None, description="'none' or 'auto'")
    function_call: Literal["none", "auto"] | None = Field(None, description="'none' or 'auto'")
    parallel_tool_calls: bool | None = Field(None, description="true or false")
    modalities: list[Literal["text"]] | None = Field(None, description="['text']")

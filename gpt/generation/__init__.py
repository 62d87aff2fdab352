"""Generation: one token after the other, each sampled from what the model predicts."""

from gpt.config import SamplingConfig
from gpt.generation.batch import generate_batch, stream_batch, stream_batch_with_logprobs
from gpt.generation.batch_engine import BatchEngine
from gpt.generation.beam import Beam, beam_search
from gpt.generation.engine import Engine, next_logits
from gpt.generation.grammar import Grammar, GrammarError
from gpt.generation.logprobs import TokenLogProb
from gpt.generation.processors import BrokenModelError, EndOfText, Processor, SampleError
from gpt.generation.sampling import sample_token
from gpt.generation.single import generate, generate_with_logprobs
from gpt.generation.speculative import NGrams, Speculation
from gpt.generation.terminal import ControlEscaper, gather, on_terminal
from gpt.generation.text_stream import TextEnd, stream
from gpt.generation.translation import translate

__all__ = [
    "BatchEngine",
    "Beam",
    "BrokenModelError",
    "ControlEscaper",
    "EndOfText",
    "Engine",
    "Grammar",
    "GrammarError",
    "NGrams",
    "Processor",
    "SampleError",
    "SamplingConfig",
    "Speculation",
    "TextEnd",
    "TokenLogProb",
    "beam_search",
    "gather",
    "generate",
    "generate_batch",
    "generate_with_logprobs",
    "next_logits",
    "on_terminal",
    "sample_token",
    "stream",
    "stream_batch",
    "stream_batch_with_logprobs",
    "translate",
]

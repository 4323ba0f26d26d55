"""Small real models and plans for the engines' tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORDS = "the cat sat on a mat and saw one more dog run far away from its old red house"


@pytest.fixture(scope="session")
def save_llama(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a tiny Llama with random weights, and optionally a tokenizer trained here, to a new folder."""

    def save(*, tokenizer: bool = False, **config: Any) -> Path:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        sizes = {
            "vocab_size": 300,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.3,  # wide enough that greedy decoding does not repeat one token
            "eos_token_id": None,
            "bos_token_id": None,
        }
        folder = tmp_path_factory.mktemp("llama")
        torch.manual_seed(1)
        LlamaForCausalLM(LlamaConfig(**(sizes | config))).save_pretrained(folder)
        if tokenizer:
            _save_tokenizer(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def llama_folder(save_llama: Callable[..., Path]) -> Path:
    """A tiny Llama without a tokenizer and without an end-of-sequence token."""
    return save_llama()


@pytest.fixture(scope="session")
def worded_llama_folder(save_llama: Callable[..., Path]) -> Path:
    """A tiny Llama with a word tokenizer."""
    return save_llama(tokenizer=True, vocab_size=64)


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<unk>", "<s>", "</s>"]
    tokenizer.train_from_iterator([WORDS], trainers.WordLevelTrainer(special_tokens=special))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)

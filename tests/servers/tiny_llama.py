"""A folder with a llama of two layers, random weights and a byte-level tokenizer, which `transformers serve` loads in a second.

`python -m tests.servers.tiny_llama FOLDER [HIDDEN_SIZE LAYERS]` writes it; needs torch, transformers and tokenizers.
"""

import sys
from pathlib import Path

CHAT = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"


def write(folder: Path, *, seed: int = 0, hidden_size: int = 128, layers: int = 2) -> Path:
    """Configuration, weights, tokenizer; heads of 64, because vLLM on a CPU has no attention for smaller ones."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = CHAT
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        max_position_embeddings=2048,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    sizes = map(int, sys.argv[2:4])
    write(Path(sys.argv[1]), **dict(zip(("hidden_size", "layers"), sizes, strict=False)))

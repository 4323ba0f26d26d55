"""A GGUF file of a llama with two layers and random weights, which llama.cpp loads in a tenth of a second.

`python -m tests.servers.tiny_gguf FILE` writes it; needs the package gguf.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

LAYERS, WIDTH, HEADS, FEED_FORWARD, CONTEXT = 2, 64, 4, 128, 2048
BEGIN, END = "<s>", "</s>"
# llama.cpp wants at least one merge
MERGED = "ab"
_NORMAL, _CONTROL = 1, 3


def write(path: Path, *, seed: int = 0) -> Path:
    """The file, the same for the same seed."""
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    _describe(writer)
    rng = np.random.default_rng(seed)
    for name, shape in _shapes(len(_tokens())).items():
        weights = np.ones(shape) if name.endswith("norm.weight") else rng.normal(0, 0.05, shape)
        writer.add_tensor(name, weights.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: Any) -> None:
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(0)
    tokens = _tokens()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([_CONTROL if token in (BEGIN, END) else _NORMAL for token in tokens])
    writer.add_token_merges([" ".join(MERGED)])
    writer.add_bos_token_id(tokens.index(BEGIN))
    writer.add_eos_token_id(tokens.index(END))


def _tokens() -> list[str]:
    """A token for each byte, as byte-level BPE writes them, one of two bytes, and two that mark begin and end."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + place) for place, byte in enumerate(others)
    }
    return [letters[byte] for byte in range(256)] + [MERGED, BEGIN, END]


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, WIDTH)}
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        shapes |= {f"{at}attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        shapes |= {f"{at}attn_norm.weight": (WIDTH,), f"{at}ffn_norm.weight": (WIDTH,)}
        shapes |= {f"{at}ffn_{name}.weight": (FEED_FORWARD, WIDTH) for name in ("gate", "up")}
        shapes[f"{at}ffn_down.weight"] = (WIDTH, FEED_FORWARD)
    return shapes | {"output_norm.weight": (WIDTH,), "output.weight": (vocabulary, WIDTH)}


if __name__ == "__main__":
    write(Path(sys.argv[1]))

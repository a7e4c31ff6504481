"""Runs llama.cpp's own converter of a folder, `convert_hf_to_gguf.py` at LLAMA_CPP_SOURCE, whose
parts are imported. Its vocabulary is a filler: which one a folder has it tells by known hashes.

`python llama_cpp_converter.py SOURCE FOLDER OUT FUSE`, in a process of its own as it brings its
own `gguf`; FUSE is `qkv`, `experts` or nothing. Needs PyTorch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

NORMAL = 1  # GGUF's type of a token like any other


def main() -> None:
    """Writes a GGUF file in F32."""
    source, folder, out, fuse = sys.argv[1:]
    sys.path[1:1] = [f"{source}/gguf-py", source]
    import gguf
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    parameters = ModelBase.load_hparams(Path(folder), False)
    made = get_model_class(get_model_architecture(parameters, ModelType.TEXT))
    for each in _below(ModelBase):  # one may hand its work to another
        each.set_vocab = _set_filler
    made.no_mtp = True  # no layers that guess further tokens
    fused = {"fuse_qkv": fuse == "qkv", "fuse_gate_up_exps": fuse == "experts"}
    with torch.inference_mode():
        made(Path(folder), gguf.LlamaFileType.ALL_F32, Path(out), eager=True, **fused).write()


def _below(model: Any) -> list[Any]:
    return [model, *(each for one in model.__subclasses__() for each in _below(one))]


def _set_filler(model: Any) -> None:
    writer, size = model.gguf_writer, model.hparams["vocab_size"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([chr(0x100 + i) for i in range(size)])
    writer.add_token_types([NORMAL] * size)
    writer.add_token_merges(["a b"])


if __name__ == "__main__":
    main()

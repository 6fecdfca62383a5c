"""Tiny random models of five families, built from configurations, offline: for tests of this library and of yours.

They have two layers and a byte-level tokenizer of 260 tokens, so a forward pass takes milliseconds. What holds on them
holds by construction, not by training: use them for laws (padding, caching, shapes), never for findings.
"""

from typing import Any

import torch

from affectlens.errors import ModelError
from affectlens.model import LensModel, load_model
from affectlens.quiet import quiet_transformers
from affectlens.sites import Site

VOCABULARY = 260
_SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": VOCABULARY, "max_position_embeddings": 1024,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
_GPT2 = {
    "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": 1024,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
_NEOX = {k: v for k, v in _SIZES.items() if k not in ("num_key_value_heads", "head_dim")}
FAMILIES = ("llama", "gemma3", "qwen", "gpt2", "gpt_neox")


def tiny_tokenizer(*, bos: bool = False) -> Any:
    """A fast byte-level tokenizer: 256 bytes, three specials and one spare; ``bos`` puts a BOS before each text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<bos>", "<eos>", "<pad>", "<unk>"]
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate([*specials, *symbols])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(specials)
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


def tiny_hf(family: str, *, seed: int = 0) -> Any:
    """A random Hugging Face model of the family, in float32 on the CPU; the global random state is left as it was.

    Raises:
        ModelError: an unknown family.
    """
    if family not in FAMILIES:
        raise ModelError(f"There is no tiny {family!r}; choose from {', '.join(FAMILIES)}.")
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        import transformers

        hf: Any = transformers
        torch.manual_seed(seed)
        if family == "llama":
            return hf.LlamaForCausalLM(hf.LlamaConfig(**_SIZES))
        if family == "gemma3":
            return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**_SIZES, sliding_window=16, query_pre_attn_scalar=8))
        if family == "qwen":
            return hf.Qwen2ForCausalLM(hf.Qwen2Config(**{k: v for k, v in _SIZES.items() if k != "head_dim"}))
        if family == "gpt2":
            return hf.GPT2LMHeadModel(hf.GPT2Config(**_GPT2))
        return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**_NEOX))


def tiny_model(family: str = "llama", *, seed: int = 0, bos: bool | None = None, check: bool = True) -> LensModel:
    """A tiny random model with its tokenizer, load-checked; Gemma's tokenizer adds a BOS, as the real one does.

    >>> tiny_model("gpt2").n_layers
    2
    """
    tokenizer = tiny_tokenizer(bos=family == "gemma3" if bos is None else bos)
    return load_model(model=tiny_hf(family, seed=seed), tokenizer=tokenizer, check=check)


def tiny_sae(model: LensModel, site: str = "L1.resid_post", *, n_features: int = 64, k: int = 4, seed: int = 0) -> Any:
    """A random top-k autoencoder (an :class:`affectlens.Sae`) for a site of a model, its decoder's rows of length 1.

    >>> tiny_sae(tiny_model()).n_features
    64
    """
    from affectlens.probing.sae import sae_lens
    from affectlens.probing.sae_files import wrap

    width = int(torch.tensor(model.sites.shape(Site.parse(site))).prod())
    with sae_lens() as library:
        inner = library.SAE.from_dict({"architecture": "topk", "d_in": width, "d_sae": n_features, "k": k})
    rng = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(n_features, width, generator=rng), dim=-1)
    inner.W_dec.data, inner.W_enc.data = rows, rows.T.contiguous()
    inner.b_dec.data = 0.1 * torch.randn(width, generator=rng)
    return wrap(inner, "tiny", site=site)

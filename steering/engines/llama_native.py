"""llama.cpp itself, through llama-cpp-python's low-level calls: a model, one context of several sequences, its vector.

The context keeps all sequences in one pool of cells (``kv_unified``): apart, llama.cpp would batch only sequences of
consecutive numbers, and those that share a vector are any. Only one thread may call a context.
"""

import ctypes
import importlib
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from affectlens.errors import SteerError
from affectlens.steering.engines.llama_course import NOTHING, Push

CHUNK = 512  # tokens of a pass, at most
_ERROR = 4  # the level of llama.cpp's notices that is kept
_kept: list[Any] = []  # the callback that llama.cpp calls, for as long as the process lives
_errors: deque[str] = deque(maxlen=3)


class Token(NamedTuple):
    """A token that goes in."""

    seat: int  # its sequence
    id: int
    position: int
    wanted: bool  # whether the logits after it are


def library() -> Any:
    """The module ``llama_cpp``, silenced: what llama.cpp says of errors goes into ours.

    Raises:
        SteerError: if it is not installed.
    """
    try:
        found: Any = importlib.import_module("llama_cpp")
    except (ImportError, OSError, RuntimeError) as error:  # the last two: its shared library does not load
        raise SteerError(
            f"llama.cpp is not here ({error}): install it with pip install 'affectlens[llamacpp]', which builds it in "
            "some minutes."
        ) from None
    if not _kept:
        _kept.append(found.llama_log_callback(_noted))
    found.llama_log_set(_kept[0], ctypes.c_void_p(0))
    return found


def _noted(level: int, text: bytes, _data: Any) -> None:
    if level == _ERROR:
        _errors.append(" ".join(text.decode("utf-8", "replace").split()))


class Native:
    """A GGUF file's model and its context."""

    def __init__(self, path: Path, *, seats: int, cells: int, threads: int, half: bool) -> None:
        lib = self.lib = library()
        _errors.clear()
        load = lib.llama_model_default_params()
        load.n_gpu_layers = 0
        load.use_extra_bufts = b"AMX" not in lib.llama_print_system_info()  # there Q4_1 crashes (llama.cpp 20824)
        self.model = lib.llama_model_load_from_file(str(path).encode(), load)
        if not self.model:
            raise SteerError(f"llama.cpp can't load {path.name} ({self._said()}): is it a whole GGUF file of a model?")
        how = lib.llama_context_default_params()
        how.n_ctx, how.n_batch, how.n_ubatch, how.n_seq_max, how.kv_unified = cells, CHUNK, CHUNK, seats, True
        how.n_threads = how.n_threads_batch = threads
        how.flash_attn_type = 0
        how.type_k = how.type_v = lib.GGML_TYPE_F16 if half else lib.GGML_TYPE_F32
        self.context = lib.llama_init_from_model(self.model, how)
        if not self.context:
            lib.llama_model_free(self.model)
            raise SteerError(f"llama.cpp has no room for {cells} tokens ({self._said()}): ask for less n_ctx or slots.")
        self.batch = lib.llama_batch_init(CHUNK, 0, 1)
        self.close = weakref.finalize(self, _release, lib, self.batch, self.context, self.model)
        self.vocabulary = lib.llama_model_get_vocab(self.model)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self.vocabulary))
        self.n_layers, self.d_model = int(lib.llama_model_n_layer(self.model)), int(lib.llama_model_n_embd(self.model))
        self.pushed = NOTHING

    @property
    def kept_as(self) -> str:
        """The types of the weights, as llama.cpp names them, such as Q4_1."""
        room = ctypes.create_string_buffer(128)
        self.lib.llama_model_desc(self.model, room, len(room))  # architecture, a size by layers, types
        return room.value.decode("utf-8", "replace").split(maxsplit=2)[-1]

    def push(self, push: Push) -> None:
        """Let every pass from now on add these vectors.

        Args:
            push: by layer, from 1.

        Raises:
            SteerError: if llama.cpp refuses.
        """
        if push == self.pushed:
            return
        layers = [layer for layer, _ in push]
        table = np.zeros((max(layers, default=0), self.d_model), np.float32)
        for layer, vector in push:
            table[layer - 1] = np.frombuffer(vector, np.float32)
        data = table.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) if push else None
        ends = (min(layers), max(layers)) if push else (0, 0)
        if self.lib.llama_set_adapter_cvec(self.context, data, table.size, self.d_model, *ends) != 0:
            raise SteerError(f"llama.cpp refused the control vector ({self._said()}).")
        self.pushed = push

    def run(self, tokens: Sequence[Token]) -> dict[int, Tensor]:
        """One pass; the logits ``[d_vocab]`` that are wanted, by seat.

        Args:
            tokens: at most :data:`CHUNK`, each sequence's in order.

        Raises:
            SteerError: if llama.cpp fails.
        """
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, (seat, token, position, wanted) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
            batch.seq_id[i][0] = seat
        if (code := self.lib.llama_decode(self.context, batch)) != 0:
            raise SteerError(f"llama.cpp could not run {len(tokens)} tokens: code {code} ({self._said()}).")
        return {token.seat: self._logits(i) for i, token in enumerate(tokens) if token.wanted}

    def _logits(self, i: int) -> Tensor:
        rows = self.lib.llama_get_logits_ith(self.context, i)
        return torch.from_numpy(np.ctypeslib.as_array(rows, (self.n_vocab,)).copy())

    def forget(self, seat: int) -> None:
        """Empty a sequence.

        Args:
            seat: its number.
        """
        self.lib.llama_memory_seq_rm(self.lib.llama_get_memory(self.context), seat, -1, -1)

    def spelled(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones included, by the file's own vocabulary.

        Args:
            ids: of the tokens.
        """
        kept = (self.lib.llama_token * len(ids))(*ids)
        room = ctypes.create_string_buffer(64 * len(ids) + 64)
        size = self.lib.llama_detokenize(self.vocabulary, kept, len(ids), room, len(room), False, True)
        return room.raw[: max(size, 0)].decode("utf-8", "replace")

    def _said(self) -> str:
        return " ".join(_errors) or "it does not say why"


def _release(lib: Any, batch: Any, context: Any, model: Any) -> None:
    lib.llama_batch_free(batch)
    lib.llama_free(context)
    lib.llama_model_free(model)

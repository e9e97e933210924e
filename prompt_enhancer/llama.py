"""A language model in a GGUF file through llama.cpp. Imported only by the child process.

The C functions are called directly: the Python layer above them would compile the chat template that lies in the
file, which is a stranger's program. Tokens of control are made only from our own strings.
"""

from __future__ import annotations

import codecs
import ctypes
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import llama_cpp as lib
import numpy as np

if TYPE_CHECKING:
    from prompt_enhancer.eyes import Eyes, Picture

MAX_CONTEXT = 4096
NARROW_CONTEXT = 512
_KV_FLOAT32 = 0  # ggml's number for it
_WARNING, _ERROR = 3, 4  # of llama.cpp's log
_problems: list[str] = []


@lib.llama_log_callback
def listen(level: int, text: bytes, _: object) -> None:
    """Keeps llama.cpp's warnings and errors, the last of which explains a failure; drops the rest."""
    if level in (_WARNING, _ERROR) and text.strip():
        _problems.append(text.decode("utf-8", errors="replace").strip())
        del _problems[:-20]


def reason_of_failure(otherwise: str) -> str:
    """What llama.cpp said of its failure: its first error, without the names of its functions."""
    said = [line.rpartition(": ")[2] if "error" not in line else line.partition(": ")[2] for line in _problems]
    telling = [line for line in said if line and "failed to load model" not in line]
    return (telling or said or [otherwise])[-1][:200]


class LoadError(Exception):
    """The file is no model that llama.cpp can run."""


def check_header(path: Path) -> None:
    """Refuses what cannot be a GGUF file before any of it is interpreted.

    Raises:
        LoadError: not a GGUF file, one of another version, or one whose counts cannot be true.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(24)
    if len(head) < 24 or head[:4] != b"GGUF":
        raise LoadError(f"{path.name} is not a GGUF file")
    version, tensors, entries = struct.unpack("<IQQ", head[4:])
    if version not in (2, 3):
        raise LoadError(f"{path.name} is GGUF version {version}; 2 and 3 can be read")
    if not 0 < tensors <= 100_000 or not 0 < entries <= 100_000 or 16 * (tensors + entries) > size:
        raise LoadError(f"{path.name} is damaged: it claims {tensors} tensors and {entries} entries")


def _check(code: int) -> None:
    if code:
        raise LoadError(f"llama.cpp stopped with code {code}; the context may be full")


class Llama:
    """One loaded model with its context."""

    def __init__(self, path: Path, threads: int, exact: bool = False) -> None:
        """Loads a file.

        Args:
            exact: keep the attention cache in float32, as small models can.

        Raises:
            LoadError: with llama.cpp's own last words.
        """
        check_header(path)
        lib.llama_log_set(listen, ctypes.c_void_p(0))
        lib.llama_backend_init()
        options = lib.llama_model_default_params()
        options.check_tensors = True
        self.model = lib.llama_model_load_from_file(os.fsencode(path), options)
        if not self.model:
            raise LoadError(f"{path.name} cannot be loaded: {reason_of_failure('no reason given')}")
        self.vocab = lib.llama_model_get_vocab(self.model)
        known = lib.llama_model_n_ctx_train(self.model)
        self.context = min(NARROW_CONTEXT if exact else MAX_CONTEXT, known if known > 0 else MAX_CONTEXT)
        settings = lib.llama_context_default_params()
        settings.n_ctx = settings.n_batch = self.context
        settings.n_threads = settings.n_threads_batch = threads
        if exact:
            settings.type_k = settings.type_v = _KV_FLOAT32
            settings.flash_attn_type = 0
        self.state = lib.llama_init_from_model(self.model, settings)
        if not self.state:
            raise LoadError(f"{path.name} does not run: {reason_of_failure('not enough memory')}")

    def meta(self, key: str) -> str:
        """A text entry of the file; empty if it has none."""
        buffer = ctypes.create_string_buffer(512)
        length = lib.llama_model_meta_val_str(self.model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", errors="replace") if length >= 0 else ""

    def tokens(self, text: str, control: bool = False) -> list[int]:
        """Token ids of a text; only with `control` do names of control tokens in it become such tokens."""
        raw = text.encode("utf-8", errors="ignore")
        room = (ctypes.c_int32 * (len(raw) + 8))()
        count = lib.llama_tokenize(self.vocab, raw, len(raw), room, len(room), False, control)
        if count < 0:
            raise LoadError(f"the tokenizer needs {-count} tokens for {len(raw)} bytes")
        return list(room[:count])

    def has_special(self, name: str) -> bool:
        """Whether this is one token of the file that plain text cannot become."""
        ids = self.tokens(name, control=True)
        return len(ids) == 1 and self.tokens(name) != ids

    def start(self) -> list[int]:
        """The token that opens every text of this model, if it has one."""
        wanted = lib.llama_vocab_get_add_bos(self.vocab)
        return [lib.llama_vocab_bos(self.vocab)] if wanted else []

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits [vocabulary] after these tokens, from an empty context."""
        lib.llama_memory_clear(lib.llama_get_memory(self.state), True)
        self._decode(tokens)
        count = lib.llama_vocab_n_tokens(self.vocab)
        return np.ctypeslib.as_array(lib.llama_get_logits_ith(self.state, -1), shape=(count,)).copy()

    def _decode(self, tokens: Sequence[int]) -> None:
        array = (ctypes.c_int32 * len(tokens))(*tokens)
        _check(lib.llama_decode(self.state, lib.llama_batch_get_one(array, len(tokens))))

    def write(
        self, prompt: Sequence[int], grammar: str, most: int, temperature: float, seed: int
    ) -> Iterator[tuple[str, int]]:
        """Writes until the grammar is complete or `most` tokens are used; yields (text, token number).

        Pieces are whole characters; a token that ends inside one yields an empty text.
        """
        lib.llama_memory_clear(lib.llama_get_memory(self.state), True)
        self._decode(prompt)
        yield from self._continued(len(prompt), grammar, most, temperature, seed)

    def look(
        self, eyes: Eyes, picture: Picture, parts: Sequence[tuple[str, bool] | None], grammar: str, most: int
    ) -> Iterator[tuple[str, int]]:
        """Writes about a picture, which stands where a part is None; yields what `write` does."""
        lib.llama_memory_clear(lib.llama_get_memory(self.state), True)
        place = eyes.show(self, picture, parts)
        yield from self._continued(place, grammar, most, 0.0, 0)

    def _continued(
        self, place: int, grammar: str, most: int, temperature: float, seed: int
    ) -> Iterator[tuple[str, int]]:
        """Samples on from what was decoded; place: position of the next token."""
        rule, chain = self._rule(grammar), _chain(temperature, seed)
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        buffer = ctypes.create_string_buffer(512)
        batch = lib.llama_batch_init(1, 0, 1)
        try:
            for number in range(1, min(most, self.context - place) + 1):
                token = self._next(rule, chain)
                if lib.llama_vocab_is_eog(self.vocab, token):
                    return
                length = lib.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, False)
                yield decoder.decode(buffer.raw[: max(length, 0)]), number
                batch.n_tokens = 1
                batch.token[0], batch.pos[0], batch.n_seq_id[0], batch.logits[0] = token, place + number - 1, 1, 1
                batch.seq_id[0][0] = 0
                _check(lib.llama_decode(self.state, batch))
        finally:
            lib.llama_batch_free(batch)
            lib.llama_sampler_free(chain)
            if rule:
                lib.llama_sampler_free(rule)

    def _rule(self, grammar: str) -> object | None:
        """A grammar that holds the answer; None for none."""
        if not grammar:
            return None
        rule = lib.llama_sampler_init_grammar(self.vocab, grammar.encode(), b"root")
        if not rule:
            raise LoadError("the grammar of the answer cannot be used with this file's tokens")
        return rule

    def _next(self, rule: object | None, chain: object, eager: bool = True) -> int:
        """The next token.

        Args:
            eager: try the model's first choice alone, and hold all its tokens against the grammar only where that one
                breaks it. It breaks it seldom, and a vocabulary has up to 250,000 tokens.
        """
        if rule is None or eager:
            token = int(lib.llama_sampler_sample(chain, self.state, -1))
            if rule is None:
                return token
            if self._allowed(rule, token):
                lib.llama_sampler_accept(rule, token)
                return token
        count = lib.llama_vocab_n_tokens(self.vocab)
        candidates = _candidates(count)
        filled = np.frombuffer(memoryview(candidates), dtype=_CANDIDATE)
        filled["id"] = np.arange(count)
        filled["logit"] = np.ctypeslib.as_array(lib.llama_get_logits_ith(self.state, -1), shape=(count,))
        array = lib.llama_token_data_array(data=candidates, size=count, selected=-1, sorted=False)
        lib.llama_sampler_apply(rule, ctypes.byref(array))
        lib.llama_sampler_apply(chain, ctypes.byref(array))
        token = int(array.data[array.selected].id)
        lib.llama_sampler_accept(rule, token)
        return token

    def _allowed(self, rule: object, token: int) -> bool:
        candidates = _candidates(1)
        candidates[0].id, candidates[0].logit = ctypes.c_int32(token), 1.0
        array = lib.llama_token_data_array(data=candidates, size=1, selected=-1, sorted=False)
        lib.llama_sampler_apply(rule, ctypes.byref(array))
        return bool(np.isfinite(array.data[0].logit))


_CANDIDATE = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])


def _candidates(count: int) -> ctypes.Array[lib.llama_token_data]:
    return (lib.llama_token_data * count)()


def _chain(temperature: float, seed: int) -> object:
    """How a token is picked from those that the model finds likely."""
    chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
    if temperature <= 0:
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_greedy())
        return chain
    for one in (
        lib.llama_sampler_init_top_k(40),
        lib.llama_sampler_init_top_p(0.95, 1),
        lib.llama_sampler_init_temp(temperature),
        lib.llama_sampler_init_dist(seed & 0xFFFFFFFF),
    ):
        lib.llama_sampler_chain_add(chain, one)
    return chain

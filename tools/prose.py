"""Conversational words in docstrings, comments and names of tests, where a component ought to be the subject."""

from __future__ import annotations

import ast
import collections
import dataclasses
import io
import re
import tokenize
from collections.abc import Iterable, Iterator

from tools.source_tree import Module

WORDS = (
    *("says", "said", "say", "told", "tell", "tells"),
    *("somebody", "anybody", "whoever", "nobody", "he", "his", "word"),
    *("everybody", "someone", "heard", "hears"),
)

_WORD = re.compile(r"[A-Za-z]+")
_TEST = "test_"

#: A Lua string, which may hold two hyphens, or a comment.
_LUA = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|--\[\[(?P<block>.*?)\]\]|--(?P<line>[^\n]*)", re.DOTALL)

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclasses.dataclass(frozen=True)
class Prose:
    """How often the words occur."""

    total: int  #: words of any kind
    counts: dict[str, int]  #: by word, those that occur

    @property
    def per_thousand(self) -> float:
        """Occurrences per 1,000 words."""
        return 1_000 * sum(self.counts.values()) / self.total if self.total else 0.0


def measure(modules: Iterable[Module], lua: Iterable[str] = ()) -> Prose:
    """Count the words.

    Args:
        modules: those whose docstrings and comments are read, and the names of their tests, which are sentences.
        lua: the text of Lua scripts.
    """
    texts = [*(text for module in modules for text in _python(module)), *(text for each in lua for text in _lua(each))]
    seen = collections.Counter(word.lower() for text in texts for word in _WORD.findall(text))
    return Prose(seen.total(), {word: seen[word] for word in WORDS if seen[word]})


def _python(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, _DOCUMENTED) and (docstring := ast.get_docstring(node)):
            yield docstring
        if isinstance(node, ast.FunctionDef) and node.name.startswith(_TEST):
            yield node.name.removeprefix(_TEST)
    for token in tokenize.generate_tokens(io.StringIO(module.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def _lua(text: str) -> Iterator[str]:
    for found in _LUA.finditer(text):
        yield found["block"] or found["line"] or ""

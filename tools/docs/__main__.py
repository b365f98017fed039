"""``python -m tools.docs``: how many blocks are run and checked, which addresses pages link to, and what is wrong."""

from __future__ import annotations

import argparse
import collections
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.docs import links, names, pages, syntax, values, vocabulary
from tools.docs.pages import Page, Treatment

ROOT = Path(__file__).parents[2]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the counts and every problem.

    Args:
        argv: the command line without the program; the process's own by default.

    Returns:
        The exit status: 1 when there are problems.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.docs", description=__doc__)
    parser.add_argument("--links", action="store_true", help="list the addresses elsewhere; none of them is asked")
    args = parser.parse_args(argv)
    found = pages.every(ROOT)
    if args.links:
        for address, places in sorted(links.external(found).items()):
            print(f"{address}  ({', '.join(dict.fromkeys(places))})")
        return 0
    print("\n".join(counts(found)))
    wrong = list(problems(found))
    print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


def counts(found: Sequence[Page]) -> Iterator[str]:
    """Blocks by language and treatment, and the reasons of those that are not run.

    Args:
        found: all pages.
    """
    blocks = [block for page in found for block in page.blocks]
    by_treatment = collections.Counter(block.treatment for block in blocks)
    languages = sorted({block.language for block in blocks})
    yield f"{len(found)} pages, {len(blocks)} blocks: " + ", ".join(
        f"{by_treatment[treatment]} {treatment}" for treatment in Treatment if by_treatment[treatment]
    )
    for language in languages:
        of = collections.Counter(block.treatment for block in blocks if block.language == language)
        yield f"  {language:<8} " + ", ".join(
            f"{of[treatment]} {treatment}" for treatment in Treatment if of[treatment]
        )
    for block in blocks:
        if block.treatment is Treatment.CHECKED:
            yield f"  not run: {block.place}: {block.reason}"


def problems(found: Sequence[Page]) -> Iterator[str]:
    """Everything that is wrong with pages and can be found without running them.

    Args:
        found: all pages.
    """
    known = vocabulary.of_checkout(ROOT)
    blocks = [block for page in found for block in page.blocks]
    yield from syntax.problems(blocks, ROOT)
    yield from values.problems(blocks)
    for page in found:
        yield from names.problems(page, known)
    yield from links.problems(found, ROOT)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as other programs before `| head`
    sys.exit(main())

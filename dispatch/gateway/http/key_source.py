"""The API keys that authenticate now: those of the settings, and those of a file that is followed while the gateway runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from dispatch.config import api_keys, key_file
from dispatch.config.api_keys import ApiKey
from dispatch.config.key_file import KeyFileUnusable
from dispatch.config.settings import PREFIX, Settings
from dispatch.errors import ConfigurationError
from dispatch.telemetry import logger, metrics

log = logger(__name__)

#: Seconds without a look at the file after which it counts as not followed: a file system may hang.
STALE = 15.0

#: API keys that one log line lists.
_MOST = 50


class SteadyClock:
    """The time of day, which no correction turns back: a lapsed API key must not come to life again."""

    def __init__(self, wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._elapsed = wall, elapsed
        self._offset = wall() - elapsed()

    def __call__(self) -> float:
        """Epoch seconds."""
        return max(self._wall(), self._offset + self._elapsed())


class KeySource:
    """Finds API keys by their digests. Thread-safe; one thread calls `refresh`.

    A file that can't be used leaves in force what it held before. If there was nothing before, `ready` is False, and no
    request that needs an API key of it is let in.

    Args:
        configured: the API keys of the settings.
        path: of the file; empty without one.
        clock: epoch seconds.
    """

    def __init__(
        self, configured: Sequence[ApiKey] = (), path: str = "", clock: Callable[[], float] | None = None
    ) -> None:
        self._configured = tuple(configured)
        self._path = path
        self._clock = clock or SteadyClock()
        self._raw: bytes | None = None
        self._from_file: tuple[ApiKey, ...] = ()
        self._put(self._configured)
        self._failure = ""
        self._looked_at = time.monotonic()
        self._used: dict[str, float] = {}
        self.refresh()

    @classmethod
    def from_settings(cls, settings: Settings) -> KeySource:
        """Of ``DISPATCH_API_KEYS`` and ``DISPATCH_API_KEYS_FILE``.

        Raises:
            ConfigurationError: names each invalid entry of the setting by its position, never by its text.
        """
        entries: list[ApiKey] = []
        problems: list[str] = []
        for number, text in enumerate(settings.api_keys, 1):
            try:
                entries.append(api_keys.parse(text))
            except ValueError as exc:
                problems.append(f"{PREFIX}API_KEYS: entry {number}: {exc}")
        if problems:
            raise ConfigurationError("\n".join(problems))
        return cls(entries, settings.api_keys_file)

    @property
    def keyed(self) -> bool:
        """Whether requests need an API key at all. A file asks for one also while it is empty, broken or missing."""
        return bool(self._configured or self._path)

    @property
    def follows_file(self) -> bool:
        """Whether there is a file."""
        return bool(self._path)

    @property
    def ready(self) -> bool:
        """Whether the API keys are known: the file has been read at least once, or there is none."""
        return self._raw is not None or not self._path

    @property
    def failure(self) -> str:
        """Why the file can't be used now; empty when it can."""
        if self._path and time.monotonic() - self._looked_at > STALE:
            return f"the file was not looked at for {STALE:g} s"
        return self._failure

    def find(self, digest: str) -> ApiKey | None:
        """The API key with a digest, lapsed or not.

        An attacker can't choose a digest without the pepper, so the time of the look-up reveals nothing about any.
        """
        return self._by_digest.get(digest)

    def lapsed(self, entry: ApiKey) -> bool:
        """Whether its time is over."""
        return entry.expired(self._clock())

    def stands(self, fingerprint: str) -> ApiKey | None:
        """The entry of an API key that has authenticated, as it is now; None once it is revoked or its time is over."""
        entry = self._by_fingerprint.get(fingerprint)
        return None if entry is None or self.lapsed(entry) else entry

    def use(self, entry: ApiKey) -> None:
        """It has authenticated a request."""
        self._used[entry.fingerprint] = self._clock()

    def used(self) -> Mapping[str, float]:
        """When each API key authenticated last in this process, by fingerprint."""
        return dict(self._used)

    def refresh(self) -> None:
        """Look at the file, and take over what has changed in it.

        Its bytes are compared, not its times: those may go back, or stay the same within a tick of the kernel's clock.
        """
        if not self._path:
            return
        try:
            raw = key_file.read(self._path)
            if raw != self._raw:
                self._adopt(raw)
        except KeyFileUnusable as exc:
            self._fail(str(exc))
        else:
            if self._failure:
                log.info("API keys file can be used again")
            self._failure = ""
        self._looked_at = time.monotonic()
        metrics.KEY_FILE_FAILING.set(1 if self._failure else 0)

    def _adopt(self, raw: bytes) -> None:
        entries = key_file.parse(raw)
        before, now = _names(self._from_file), _names(entries)
        self._put((*self._configured, *entries))
        self._from_file, self._raw = entries, raw
        known = self._by_fingerprint
        self._used = {fingerprint: at for fingerprint, at in self.used().items() if fingerprint in known}
        added, removed = sorted(now - before), sorted(before - now)
        log.info("API keys read", count=len(entries), added=added[:_MOST], removed=removed[:_MOST])

    def _put(self, entries: Sequence[ApiKey]) -> None:
        self._by_digest = {entry.digest: entry for entry in entries}
        self._by_fingerprint = {entry.fingerprint: entry for entry in self._by_digest.values()}

    def _fail(self, failure: str) -> None:
        if failure != self._failure:
            log.error("API keys file can't be used", reason=failure, path=self._path, kept=len(self._from_file))
        self._failure = failure


def _names(entries: Sequence[ApiKey]) -> set[str]:
    return {f"{entry.id} {entry.fingerprint}" for entry in entries}

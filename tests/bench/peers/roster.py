"""Who takes part: every peer as it is set up. Settings that need words are told in README.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.bench.peers.environments import Environment, MavenProject, PythonEnvironment


@dataclass(frozen=True, slots=True)
class Peer:
    """One set-up of one library.

    Args:
        name: begins with the library's.
        program: a module of `programs`, or a Java class.
        exactly_once: what it is asked to promise; else at least once.
        env: what else its program is told.
    """

    name: str
    environment: Environment
    program: str
    exactly_once: bool
    env: Mapping[str, str] = field(default_factory=dict)


_KSTREAMS: Final = MavenProject()
_QUIX: Final = PythonEnvironment("quix")
_FAUST: Final = PythonEnvironment("faust")
_BYTEWAX: Final = PythonEnvironment("bytewax")
# It says 3.12, but on 3.12.1 the standard library's `typing` breaks its classes.
_FLECHTWERK: Final = PythonEnvironment("flechtwerk", oldest=(3, 13))

PEERS: Final = (
    Peer("kstreams-memory-eo", _KSTREAMS, "bench.Steps", True, {"BENCH_STORE": "memory"}),
    Peer("kstreams-memory-alo", _KSTREAMS, "bench.Steps", False, {"BENCH_STORE": "memory"}),
    Peer("kstreams-rocksdb-eo", _KSTREAMS, "bench.Steps", True, {"BENCH_STORE": "rocksdb"}),
    Peer("kstreams-rocksdb-alo", _KSTREAMS, "bench.Steps", False, {"BENCH_STORE": "rocksdb"}),
    Peer("quix-eo", _QUIX, "quix_app", True),
    Peer("quix-eo-100ms", _QUIX, "quix_app", True, {"BENCH_COMMIT_MS": "100"}),
    Peer("quix-alo", _QUIX, "quix_app", False),
    Peer("faust-memory-eo", _FAUST, "faust_app", True, {"BENCH_STORE": "memory://"}),
    Peer("faust-memory-alo", _FAUST, "faust_app", False, {"BENCH_STORE": "memory://"}),
    Peer("faust-rocksdb-eo", _FAUST, "faust_app", True, {"BENCH_STORE": "rocksdb://"}),
    Peer("faust-rocksdb-alo", _FAUST, "faust_app", False, {"BENCH_STORE": "rocksdb://"}),
    Peer("bytewax-alo", _BYTEWAX, "bytewax_flow", False),
    Peer("flechtwerk-eo", _FLECHTWERK, "flechtwerk_app", True),
)


def chosen(asked: str, peers: Iterable[Peer] = PEERS) -> list[Peer]:
    """`all`, `none`, or names and beginnings of names with commas between: `quix,kstreams-memory`.

    Raises:
        ValueError: one of them is nobody's.
    """
    by_name = {peer.name: peer for peer in peers}
    if asked in ("all", "none"):
        return list(by_name.values()) if asked == "all" else []
    found: set[str] = set()
    for word in asked.split(","):
        meant = {word} & by_name.keys() or {name for name in by_name if name.startswith(f"{word}-")}
        if not meant:
            raise ValueError(f"no peer {word!r}; there are {', '.join(by_name)}")
        found |= meant
    return [peer for name, peer in by_name.items() if name in found]

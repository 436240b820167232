"""The options of a replay."""

from __future__ import annotations

import msgspec

from processor.archives import CAPTURE, Capture
from processor.audit.judge.regimes import Accepted
from processor.audit.replay.task import StepFilter
from processor.core.rules import Rules


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `run-steps replay`.

    Attributes:
        start, end: as `range_bounds.parse` reads them; an empty end: where the settings' group stands, else the end.
        archives: of the source. With `and_topic` the topic is read from where they end.
        published: archives of the output topics, read instead of the topics.
        capture: where archives of Event Hubs Capture say which topic and partition they are of; for `published` its
            pattern alone, they are of several.
        partitions: of the source; empty: all.
        work: where indexes and tables are put; empty: a temporary folder. Dask workers must see it, too.
        sole_source: nothing else is published to the output topics: what names another source belongs to no source.
        accepted: other fold versions and settings digests that may stand in published records.
        earlier_rules: settings that are known to have been in force before those of the configuration.
        against: a report whose steps are compared with those of this replay. The published records are read all
            the same: clock marks stand in nothing else.
    """

    start: str = "beginning"
    end: str = ""
    archives: tuple[str, ...] = ()
    and_topic: bool = False
    published: tuple[str, ...] = ()
    capture: Capture = CAPTURE
    partitions: tuple[int, ...] = ()
    only: StepFilter = StepFilter()
    record: str = ""
    record_files: str = ".jsonl.gz"
    workers: int = 1
    dask: str = ""
    report: str = ""
    created: str | None = None
    work: str = ""
    verify: bool = True
    no_progress_s: float = 60.0
    against: str = ""
    sole_source: bool = False
    accepted: Accepted = Accepted()
    earlier_rules: tuple[Rules, ...] = ()

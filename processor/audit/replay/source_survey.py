"""Survey of the source of a replay: which offsets of which partitions, and whether archives or the topic hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from processor.archives.records import printable
from processor.audit.judge.range_result import RangeResult
from processor.audit.replay.archive_ranges import Archives
from processor.audit.replay.options import Options
from processor.audit.replay.outcome import Progress, Show
from processor.audit.replay.range_bounds import Bound, CommittedBound, Edge, Offset, Time, parse
from processor.audit.replay.task import ArchiveRange
from processor.audit.report.manifest import lossy_kinds
from processor.config.settings import Settings
from processor.errors import UsageError

if TYPE_CHECKING:  # its library takes long to load, and archives need none
    from processor.kafka.client_config import Connection
    from processor.kafka.partition_reader import PartitionReader

CLIENT_ID: Final = "run-steps.replay"


class Span(msgspec.Struct):
    """Range of one partition, resolved to offsets."""

    begin: int
    end: int
    complete: bool
    switch: int = 0
    parts: tuple[ArchiveRange, ...] = ()
    is_captured: bool = False
    is_headless: bool = False


class SourceSurvey:
    """Ranges of the source, one per partition, and notes on what limits them.

    Attributes:
        partitions: how many the topic has.
        log_ends: where the topic ended when `look_again` was called.
        notes, reading: sentences for the report.
    """

    def __init__(self, options: Options, settings: Settings, connection: Callable[[], Connection], show: Show) -> None:
        self._options, self._settings, self._connect, self._show = options, settings, connection, show
        self.topic = settings.source.topic
        self.reads_topic = not options.archives or options.and_topic
        self.spans: dict[int, Span] = {}
        self.partitions = 0
        self.log_ends: dict[int, int] = {}
        self.notes: list[str] = []
        self.reading: list[str] = []
        self._archives = Archives((), self.topic, options.capture)
        self._questions: dict[int, list[str]] = {}

    async def find(self) -> None:
        """Resolve the range of each partition, from the topic or from the archives."""
        start, end = self._bounds()
        if self.reads_topic:
            await self._find_on_topic(start, end)
        else:
            self._find_in_archives(start, end)

    def words(self) -> str:
        """Where the records are read from, as a report says it (`About.source`)."""
        kinds: list[str] = []
        if self._options.archives:
            spans = self.spans.values()
            kinds = lossy_kinds(
                is_captured=any(span.is_captured for span in spans), is_headless=any(span.is_headless for span in spans)
            ) or ["archives"]
        return " and ".join([*kinds, *(["topic"] if self.reads_topic else [])])

    async def look_again(self) -> None:
        """Read the end offsets of the source again, after the output has been read."""
        if self.reads_topic:
            async with self._reader() as reader:
                self.log_ends = await reader.end_offsets(list(self.spans))

    def _bounds(self) -> tuple[Bound, Bound]:
        start = parse("--from", self._options.start)
        if start is Edge.END:
            raise UsageError("replay: --from: nothing lies behind the end", hint="give the end with --to")
        if self._options.end:
            return start, parse("--to", self._options.end)
        if self.reads_topic:
            return start, CommittedBound(self._settings.source.group_id, or_end=True)
        return start, Edge.END

    def _reader(self) -> PartitionReader:
        from processor.kafka.partition_reader import PartitionReader

        return PartitionReader(self._connect(), topic=self.topic, client_id=CLIENT_ID)

    def _chosen(self, there: Sequence[int]) -> list[int]:
        absent = sorted(set(self._options.partitions) - set(there))
        if absent:
            raise UsageError(f"replay: --partition: {self.topic} has no partition {absent[0]}")
        return sorted(set(self._options.partitions) or there)

    async def _find_on_topic(self, start: Bound, end: Bound) -> None:
        """Resolve the range of each partition by the offsets of the topic, and note what of it is not read."""
        groups = {bound.group for bound in (start, end) if isinstance(bound, CommittedBound)}
        committed: dict[tuple[str, int], int] = {}
        if groups:
            from processor.kafka.admin import Admin

            async with Admin(self._connect()) as admin:
                for group in groups:
                    rows = await admin.group_offsets(group)
                    committed |= {(group, p): c.offset for (topic, p), c in rows.items() if topic == self.topic}
        self._survey_archives()
        async with self._reader() as reader:
            self.partitions = reader.partitions_of_topic()
            chosen = self._chosen(range(self.partitions))
            begins = await reader.begin_offsets(chosen)
            stable = await reader.stable_end_offsets(chosen)
            ends = await reader.end_offsets(chosen)
            times = {
                b.milliseconds: await reader.offsets_at(chosen, b.milliseconds)
                for b in (start, end)
                if isinstance(b, Time)
            }
        for p in chosen:
            if stable[p] < ends[p]:
                self.notes.append(
                    f"Partition {p}: an open transaction holds back what lies behind offset {stable[p]}: "
                    "it is not in the range."
                )

            def offset_of(bound: Bound, p: int = p) -> int:
                match bound:
                    case Edge.BEGINNING:
                        return begins[p]
                    case Edge.END:
                        return stable[p]
                    case Offset(offset):
                        return offset
                    case Time(milliseconds):
                        found = times[milliseconds][p]
                        return stable[p] if found is None else found
                    case CommittedBound(group, or_end):
                        found = committed.get((group, p), -1)
                        if found < 0 and not or_end:
                            raise UsageError(f"replay: group {group} has committed nothing of partition {p}")
                        return stable[p] if found < 0 else found

            low = offset_of(start)
            if start is Edge.BEGINNING:
                held = self._archives.ranges.get(p, [])
                low = min([low, *(part.begin for part in held), *(begin for begin, _ in self._promised(p))])
            high = offset_of(end)
            if high > stable[p]:
                self.notes.append(f"Partition {p}: the log can be read up to offset {stable[p]} (asked for {high}).")
                high = stable[p]
            self._settle(p, low, max(low, high), begins[p])
            if 0 < begins[p] == low:
                self.notes.append(f"Partition {p}: the log begins at offset {begins[p]}; what was before is gone.")
            if high < stable[p]:
                self.notes.append(f"Partition {p}: the range ends at offset {high}; the log goes on to {stable[p]}.")

    def _find_in_archives(self, start: Bound, end: Bound) -> None:
        """Resolve the range of each partition by what the archives hold, or promise in their manifests."""
        if isinstance(start, CommittedBound) or isinstance(end, CommittedBound):
            raise UsageError("replay: committed:<group> needs the topic", hint="give an offset, or add --and-topic")
        self._survey_archives()
        ranges, lacking = self._archives.ranges, self._archives.lacking
        if not ranges and not lacking:
            raise UsageError(f"replay: --archive: no records of topic {self.topic}", hint="set source.topic")
        self.partitions = 1 << 31  # not to be known from archives
        for p in self._chosen(sorted(ranges.keys() | lacking.keys())):
            spans = [(part.begin, part.end) for part in ranges.get(p, [])] + self._promised(p)
            first, behind = min(begin for begin, _ in spans), max(end for _, end in spans)

            def offset_of(bound: Bound, p: int = p, first: int = first, behind: int = behind) -> int:
                match bound:
                    case Edge.BEGINNING:
                        return first
                    case Offset(offset):
                        return offset
                    case Time(milliseconds):
                        found = self._archives.offset_at(p, milliseconds)
                        return behind if found is None else found
                return behind

            low = offset_of(start)
            self._settle(p, low, max(low, offset_of(end)), behind)

    def _survey_archives(self) -> None:
        options = self._options
        self._archives = Archives(
            options.archives, self.topic, options.capture, lambda path: self._show(Progress(f"surveying {path}", 0, 0))
        )

    def _promised(self, partition: int) -> list[tuple[int, int]]:
        """The offsets [begin, end) that an archive says it holds of a partition, where it does not hold all of them."""
        return [(one.held.begin, one.held.end) for _, one in self._archives.lacking.get(partition, [])]

    def _tell_lacking(self, partition: int, low: int, high: int, parts: Sequence[ArchiveRange]) -> None:
        """Say what archives lack of their own manifest. The topic, or another archive, may hold it."""
        for path, one in self._archives.lacking.get(partition, []):
            text = f"archive {printable(path)}: {one}."
            others = [part for part in parts if part.path != path]
            missing = any(_uncovered(max(first, low), min(behind, high), others) for first, behind in one.missing)
            # Nothing but the recording could have said that what it holds ends here, and it was cut short.
            is_cut = not one.held.complete and one.there is not None and one.there[1] == high
            if not self.reads_topic and (missing or is_cut):
                self._questions.setdefault(partition, []).append(text)
            else:
                self.reading.append(f"Partition {partition}: {text}")

    def questioned(self, results: list[RangeResult]) -> list[RangeResult]:
        """The results, with what archives lack of them."""
        return [
            msgspec.structs.replace(result, trouble=(*result.trouble, *self._questions.get(result.partition, ())))
            for result in results
        ]

    def _settle(self, partition: int, low: int, high: int, topic_begin: int) -> None:
        parts, notes = self._archives.laid(partition, low, high)
        self.reading += notes
        if self.reads_topic:
            parts = _before_topic(parts, low, topic_begin)
        switch = max((part.end for part in parts), default=low) if self.reads_topic else high
        if self.reads_topic and parts and switch > topic_begin and switch < high:
            self.reading.append(f"Partition {partition}: archives up to offset {switch}, the topic from there on.")
        paths = {part.path for part in parts}
        lossy = bool(paths & self._archives.captured), bool(paths & self._archives.headless)
        self.spans[partition] = Span(low, high, low == 0, switch, tuple(parts), *lossy)
        self._tell_lacking(partition, low, high, parts)


def _before_topic(parts: Sequence[ArchiveRange], low: int, topic_begin: int) -> list[ArchiveRange]:
    """The archives to read before the topic: up to the first offsets that none of them holds and the topic may."""
    before: list[ArchiveRange] = []
    at = low
    for part in parts:
        if max(at, topic_begin) < part.begin:
            break
        before.append(part)
        at = part.end
    return before


def _uncovered(low: int, high: int, parts: Sequence[ArchiveRange]) -> bool:
    """Whether some offset of [low, high) is in none of the parts, which do not overlap."""
    return low < high and sum(max(0, min(high, part.end) - max(low, part.begin)) for part in parts) < high - low

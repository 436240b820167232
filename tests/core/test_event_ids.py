"""Event ids in little memory: the same answers as a set of all ids, also across checkpoints, and old ones are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.core.checkpoints import CHECKPOINT_VERSION, IDS_VERSION, read_checkpoint
from processor.core.effects import Checkpoint
from processor.core.event_headers import plain_id
from processor.core.events import decode
from processor.core.partition import PartitionState
from processor.core.run_steps.event_ids import EventIds, id_text
from processor.core.wire_types import Decoded
from tests.core.scripted_log import RULES, Play, call, calls, published, snapshot, step, text

SAMPLE = Path(__file__).parent / "checkpoint_samples" / "run_step_version_1.msgpack"
HEX = "0123456789abcdef" * 2
USUAL: dict[str, Any] = {"type": "tool_calls", "step_details": {"type": "tool_calls", "tool_calls": []}}

NUMBERED = st.builds("{}{}".format, st.sampled_from(["a:", "b:", "a#", "step_", HEX + ":"]), st.integers(0, 12))
NEARLY = st.sampled_from(
    [
        *(
            "a:",
            ":",
            "",
            "1",
            "a1",
            "a:01",
            "a:00",
            "a:-1",
            "a:1 ",
            "a:\u0661",
            "\u00e91",
            "\u21921",
            f"a:{10**18 - 1}",
            f"a:{10**18}",
        ),
        *(HEX, HEX.upper(), HEX[:-1] + "g", HEX[:-2] + "  ", "0" * 32, "1" * 31, "1" * 33),
    ]
)
MANY_NAMES = st.builds("n{}:{}".format, st.integers(0, 30), st.integers(0, 3))
GAPS = st.builds("g:{}".format, st.integers(0, 200).map(lambda n: 2 * n))
OTHER = st.integers(0, 300).map("x{}".format) | st.integers(0, 300).map("a longer id x{}".format)
LONG = [f"a long id, number {n}." for n in range(9)]
"""After these, long ids are kept as digests."""
IDS = st.one_of(NUMBERED, NUMBERED, NEARLY, MANY_NAMES, GAPS, OTHER)


def answers_alike(added: list[str], asked: list[str]) -> None:
    """Whatever was added: `EventIds` says of any id what a set says, as does what a checkpoint gives back.

    Every other id that is the next one is added as that.
    """
    ids, expected, following = EventIds(), set[str](), 0
    for number, event_id in enumerate(added):
        assert ids.holds(event_id) == (event_id in expected), event_id
        if ids.is_next(event_id.encode()):
            following += 1
            assert event_id not in expected, event_id
        if following % 2 and ids.is_next(event_id.encode()):
            ids.add_next()
            assert not ids.add(event_id), event_id
        else:
            assert ids.add(event_id) == (event_id not in expected), event_id
        expected.add(event_id)
        if number % 7 == 3:
            before, ids = ids, ids.copy()
            assert ids.state() == before.state()
    for event_id in (*asked, *expected):
        assert ids.holds(event_id) == (event_id in expected), event_id
    again = EventIds.unpack(sorted(expected))  # as checkpoints had them
    assert all(again.holds(event_id) for event_id in expected)
    assert not any(again.holds(event_id) for event_id in asked if event_id not in expected)


@given(st.lists(IDS, max_size=60), st.lists(IDS, max_size=20))
def test_it_is_a_set_of_ids(added: list[str], asked: list[str]) -> None:
    answers_alike(added, asked)


@given(st.lists(st.integers(0, 40), max_size=60))
def test_numbers_in_any_order(numbers: list[int]) -> None:
    answers_alike([f"a:{n}" for n in numbers], [f"a:{n}" for n in range(42)])


@given(st.randoms(use_true_random=False))
def test_more_names_gaps_and_digests_than_there_is_room_for(random: object) -> None:
    added = [f"n{name}:{n}" for name in range(20) for n in range(3)]
    added += (
        [f"g:{2 * n}" for n in range(100)] + [f"{n:032x}" for n in range(100)] + [f"a long one {n}" for n in range(50)]
    )
    added += [f"x{n}" for n in range(50)] + [str(n) for n in range(50)] + [f"a longer id x{n}" for n in range(50)]
    random.shuffle(added)  # type: ignore[attr-defined]
    answers_alike(added, [f"n{name}:{n}" for name in range(22) for n in range(4)] + [f"g:{n}" for n in range(202)])


@pytest.mark.parametrize("count", [1, 7, 8, 9, 10, 40, 200])
def test_repeats_are_known_before_and_after_ids_become_digests(count: int) -> None:
    long = [f"a long id, number {n}." for n in range(count)]
    answers_alike([*long, *long, *(f"{n}." for n in range(count)), *long], ["a long id, number 200."])


def test_no_more_names_are_kept_than_there_is_room_for() -> None:
    ids = EventIds()
    for number in range(100):
        ids.add(f"name{number}:1")
    assert len(ids.pack()[0]) == 16


def test_beyond_the_largest_number_an_id_is_as_any_other() -> None:
    answers_alike([f"a:{10**18 - 2 + n}" for n in range(4)] * 2, [])


@pytest.mark.parametrize("name", ["a:", "", "a longer name, "])
@pytest.mark.parametrize("number", [0, 8, 9, 98, 99, 4_711, 10**15 - 2])
def test_the_next_number_of_a_name_is_known_at_once(name: str, number: int) -> None:
    """Else `answers_alike` would compare one way with itself."""
    ids = EventIds()
    assert not ids.is_next(f"{name}{number}".encode())
    ids.add(f"{name}{number}")
    assert ids.is_next(f"{name}{number + 1}".encode())
    ids.add_next()
    assert [n for n in range(number, number + 4) if ids.is_next(f"{name}{n}".encode())] == [number + 2]
    for other in (
        f"{name}0{number + 2}",
        f"{name}{number + 2} ",
        f"b{name}{number + 2}",
        f"{name}",
        f"\u00e9:{number}",
    ):
        assert not ids.is_next(other.encode())


@given(
    st.lists(st.binary(max_size=3) | st.builds(b"%b:%d".__mod__, st.tuples(st.binary(max_size=2), st.integers(0, 3))))
)
def test_bytes_that_are_no_text_are_the_next_id_of_no_other_text(contents: list[bytes]) -> None:
    ids, expected = EventIds(), set[str]()
    for content in contents:
        event_id = id_text(content)
        if ids.is_next(content):
            assert event_id not in expected
            ids.add_next()
        else:
            ids.add(event_id)
        expected.add(event_id)
        assert all(ids.holds(each) for each in expected)


def test_what_follows_an_id_that_found_no_room_is_still_known() -> None:
    """The number that comes next may be among the digests."""
    full = [f"a:{2 * n}" for n in range(64)]
    answers_alike([*full, "a:129", "a:126", "a:127", "a:128", "a:129", "a:130"], ["a:131"])


def test_digests_side_by_side_are_not_read_across() -> None:
    first, second = bytes(range(16)), bytes(range(16, 32))
    across = (first + second)[5:21]
    answers_alike([*LONG, first.hex(), second.hex()], [across.hex()])


@pytest.mark.parametrize(
    ("added", "asked"),
    [("a:1", "a:01"), ("a:01", "a:1"), ("a:0", "a:00"), (f"a:{10**18}", f"a:0{10**18}"), ("ab" * 16, "AB" * 16)],
)
def test_ids_that_are_nearly_the_same_are_two(added: str, asked: str) -> None:
    answers_alike([*LONG, added], [asked])
    answers_alike([*LONG, asked, added], [])


@pytest.mark.parametrize("name", [HEX + ":", "urn:producer 7#"])
def test_what_counts_up_takes_no_room(name: str) -> None:
    ids = EventIds()
    for number in range(5_000):
        assert ids.add(f"{name}{number}")
    assert len(text(ids.pack()[0])) < 100
    assert ids.pack()[1:] == [[], b"", False]


def test_hexadecimal_ids_take_their_bytes() -> None:
    ids = EventIds()
    for number in range(400):
        ids.add(f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128):032x}")
    assert ids.pack()[1] == []
    assert len(ids.pack()[2]) == 400 * 16


BEYOND_ASCII = ["\u00e9", "a \u2192", "\U00031350"]  # a letter, none, and one that Unicode has since 15.0


@pytest.mark.parametrize("name", BEYOND_ASCII)
@pytest.mark.parametrize("digits", [0, 15])
def test_what_the_unicode_tables_of_another_python_made_of_an_id_is_read(name: str, digits: int) -> None:
    """Which characters are letters hung on the Python that folded: either form may stand in its checkpoints."""
    held = [f"{name}{number + 10**digits}" for number in range(20)]
    asked = [f"{name}{10**digits - 1}", f"{name}{20 + 10**digits}", *(f"b:{number}" for number in range(4))]
    as_numbered = [["b:", [1, 2]], [name, [10**digits, 19 + 10**digits]]]
    as_any_other = EventIds()
    for each in held:
        assert as_any_other.add(each)
    for packed in ([as_numbered, [], b"", False], [[["b:", [1, 2]]], *as_any_other.pack()[1:3], False]):
        ids = EventIds.unpack(packed).copy()
        assert all(ids.holds(each) for each in held)
        assert [each for each in asked if ids.holds(each)] == ["b:1", "b:2"]
        assert not any(ids.add(each) for each in held)
        assert ids.add("b:3")


@pytest.mark.parametrize("name", BEYOND_ASCII)
def test_a_program_from_before_looks_for_such_an_id_where_it_stands(name: str) -> None:
    """Else it took it for numbered, and looked among the ranges alone."""
    ids = EventIds()
    ids.add(f"{name}7")
    assert ids.pack() == [[], [f"{name}7"], b"", True]


def test_short_ids_do_not_take_more_than_they_are_counted_for() -> None:
    """X1 counts their characters, and bounds the checkpoint by that."""
    ids = EventIds()
    for number in range(400):
        ids.add(f"x{number}")
    assert ids.pack()[1:] == [sorted(f"x{number}" for number in range(400)), b"", False]


# --- in a partition


def test_a_checkpoint_from_before_ids_were_kept_small_is_read() -> None:
    """Written by revision 0507d5a: seven events with ids of several forms, their texts `0,1,2,3,4,`."""
    value = SAMPLE.read_bytes()
    assert read_checkpoint(b"ss1", value).version == CHECKPOINT_VERSION
    play = Play()
    play.state = PartitionState("source", 3, RULES, next_offset=7, live_from=7, stream_time=1_000_006)
    play.state.load([(b"ss1", value)])
    for known in ("0123456789abcdef" * 2, "e 1", "x:0", "x:1", "x:2", "x:4", "é"):
        assert play.say("step.delta", calls(call(0, "again")), event_id=known) == []
    assert play.state.counts["duplicate"] == 7
    play.say("step.delta", calls(call(0, "5")), event_id="x:3")
    (written,) = play.state.checkpoint(100)
    assert isinstance(written, Checkpoint)
    assert written.value is not None
    assert read_checkpoint(b"ss1", written.value).version == IDS_VERSION
    done = published(play.say("step.completed", step("completed", **USUAL), event_id="end"))
    assert snapshot(done)["step_details"]["tool_calls"][0]["function"]["arguments"] == "0,1,2,3,4,5"


def test_a_step_without_ids_has_the_checkpoint_that_it_always_had() -> None:
    play = Play()
    play.created(**USUAL)
    (written,) = play.state.checkpoint(100)
    assert isinstance(written, Checkpoint)
    assert written.value is not None
    assert read_checkpoint(b"ss1", written.value).version == CHECKPOINT_VERSION


def test_a_step_of_400_deltas_takes_little_more_than_its_text_in_a_checkpoint() -> None:
    """Text and ids as they stream: pieces of a few characters, ids as `publish` numbers them."""
    play, piece = Play(), " word"
    play.created(**USUAL)
    play.say("step.delta", calls(call(0, "", id="call_0123456789abcdef01234567", function={"name": "f"})))
    for number in range(400):
        play.say("step.delta", calls(call(0, piece)), event_id=f"{HEX}:{number}")
    (written,) = play.state.checkpoint(1_000)
    assert isinstance(written, Checkpoint)
    assert written.value is not None
    assert len(written.value) <= 1.3 * 400 * len(piece) + 1_000


def test_an_amended_step_knows_the_ids_that_came_before_its_end() -> None:
    play = Play()
    play.created(**USUAL)
    play.say("step.delta", calls(call(0, "a", id="c", function={"name": "f"})), event_id="x:1")
    assert snapshot(play.completed(**USUAL))["step_details"]["tool_calls"][0]["function"]["arguments"] == "a"
    assert play.say("step.delta", calls(call(0, "a")), event_id="x:1") == []
    assert len(play.say("step.delta", calls(call(0, "b")), event_id="x:2")) == 1
    assert play.say("step.delta", calls(call(0, "b")), event_id="x:2") == []


NAMES = st.sampled_from(
    ["runstep-event-id", "runstep-run-id", "runstep-sequence", "Runstep-Event-Id", "content-type", "ce_id", "other"]
)
CONTENTS = st.sampled_from([None, b"", b"id:7", b"\xff", "\u00e9".encode(), b"text/plain"])
PUBLISHED = ["runstep-event-id", "runstep-run-id", "runstep-sequence"]
NEARLY_PUBLISHED = st.builds(lambda at, name: [*PUBLISHED[:at], name, *PUBLISHED[at + 1 :]], st.integers(0, 2), NAMES)


@given(st.one_of(st.just(PUBLISHED), NEARLY_PUBLISHED, st.lists(NAMES)), st.data())
def test_the_usual_list_of_headers_is_read_as_any_other(names: list[str], data: st.DataObject) -> None:
    headers = [(name, data.draw(CONTENTS)) for name in names]
    with_another = [("other", None), *headers]  # a list of another length, which says the same, read in another way
    assert plain_id(headers) == plain_id(with_another)


def test_what_was_added_as_the_next_one_is_in_all_that_is_asked() -> None:
    def ids() -> EventIds:
        found = EventIds()
        found.add("a:1")
        for number in range(2, 6):
            assert found.is_next(b"a:%d" % number)
            found.add_next()
        return found

    assert ids().pack()[0] == [["a:", [1, 5]]]
    assert ids().state()[0] == [("a:", [1, 5])]
    assert ids().copy().holds("a:5")
    assert ids().holds("a:5")
    assert not ids().add("a:5")
    assert EventIds.unpack(ids().pack()).is_next(b"a:6")


def _ended_twice() -> tuple[Play, dict[str, Any]]:
    """A step that was said to have ended twice, in the same words, and then got another output."""
    play = Play()
    ended = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "a", "output": "x"}}
    done = step("completed", type="tool_calls", step_details={"type": "tool_calls", "tool_calls": [ended]})
    play.created(type="tool_calls")
    play.say("step.completed", done, event_id="e:1")
    assert play.say("step.completed", done, event_id="e:2") == []
    late = published(play.say("step.delta", calls(call(0, function={"output": "late"})), event_id="e:3"))
    assert snapshot(late)["step_details"]["tool_calls"][0]["function"]["output"] == "late"
    return play, done


@pytest.mark.parametrize("event_id", ["e:1", "e:2"])
def test_an_end_that_comes_again_does_not_undo_an_amendment(event_id: str) -> None:
    """Nor one that said nothing new when it came first."""
    play, done = _ended_twice()
    assert play.say("step.completed", done, event_id=event_id) == []
    assert play.state.counts["duplicate"] == 1
    assert published(play.say("step.completed", done, event_id="e:4")).revision == 2, "with another id it is news (L5)"


def test_a_cloud_event_without_a_source_has_one_id_in_both_modes() -> None:
    """Which is not the id of a record that says `runstep-event-id`."""

    def ids(value: object, *headers: tuple[str, bytes]) -> tuple[str | None, ...]:
        found = decode(text(value), headers)
        assert isinstance(found, Decoded)
        return found.ids

    structured = {"specversion": "1.0", "type": "thread.run.step.created", "id": "e1", "data": step()}
    binary = (("ce_specversion", b"1.0"), ("ce_type", b"thread.run.step.created"), ("ce_id", b"e1"))
    assert ids(structured) == ids(step(), *binary) == (" e1",)
    assert ids({"event": "thread.run.step.created", "data": step()}, ("runstep-event-id", b"e1")) == ("e1",)

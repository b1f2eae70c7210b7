"""Frames and control messages, cut and mangled in every way.

Runs in: pytest; no process, no descriptor.
"""

import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forkpool._core.control import (
    HAS_INITIALIZER,
    MAX_TEXT,
    PACKET,
    Ask,
    Report,
    Request,
    Tell,
    pack_report,
    pack_request,
    unpack_report,
    unpack_request,
)
from forkpool._core.wire import (
    FIRST_ALLOCATION,
    HEADER,
    INLINE_BYTES,
    MAX_MICROS,
    PACKET_BYTES,
    PLAIN,
    STAMP,
    STREAM,
    VERSION,
    Answer,
    AnswerReader,
    Kind,
    MalformedFrame,
    pack,
    pack_header,
    pack_large_answer,
    unpack_header,
)

ANSWER_KINDS = [Kind.READY, Kind.VALUE, Kind.EXCEPTION, Kind.RESULT_ERROR, Kind.INIT_FAILED, Kind.LACKING]
TASK_KINDS = [Kind.INIT, Kind.TASK, Kind.STOP]

FRAMES: list[Answer] = [
    (Kind.READY, 0, 0, 0, b""),
    (Kind.VALUE, PLAIN, 17, 1, b"small"),
    (Kind.EXCEPTION, 0, MAX_MICROS, (1 << 64) - 1, bytes(INLINE_BYTES)),
    (Kind.VALUE, 0, 3, 2, bytes(range(256)) * 20),
    (Kind.RESULT_ERROR, 0, 0, 3, b"x"),
]


def packed(frame: Answer, stamp: int = 0) -> bytes:
    """As a worker writes it."""
    kind, flags, micros, seq, payload = frame
    if len(payload) > INLINE_BYTES:
        return b"".join(pack_large_answer(kind, seq, bytes(payload), flags, micros, stamp))
    return pack(kind, seq, bytes(payload), flags, micros, stamp)


def packed_all(frames: list[Answer], stamp: int = 0) -> bytes:
    data = b""
    for frame in frames:
        data += packed(frame, stamp + len(data))
    return data


def feed_all(pieces: list[bytes], reader: AnswerReader | None = None) -> list[Answer]:
    """As `WorkerLink` does it: while a payload is gathered, read right into its place."""
    reader, answers = reader or AnswerReader(), []
    for piece in pieces:
        rest = piece
        while rest:
            if reader.gathering:
                with reader.space() as space:
                    count = min(len(space), len(rest))
                    space[:count] = rest[:count]
                answers += reader.advance(count)
                rest = rest[count:]
            else:
                answers += reader.feed(rest)
                rest = b""
    return answers


STREAM_OF_FRAMES = packed_all(FRAMES)


def test_a_stream_cut_at_any_point_gives_the_same_answers() -> None:
    # Every point near a header, and a sample of those within payloads.
    ends = {0, len(STREAM_OF_FRAMES)}
    position = 0
    for frame in FRAMES:
        ends |= set(range(position, position + HEADER.size + 2))
        position += len(packed(frame))
        ends |= {position - 1, position}
    for cut in sorted(ends | set(range(0, len(STREAM_OF_FRAMES), 97))):
        assert feed_all([STREAM_OF_FRAMES[:cut], STREAM_OF_FRAMES[cut:]]) == FRAMES, cut


def test_a_small_stream_cut_at_every_two_points() -> None:
    frames = [FRAMES[0], FRAMES[1], FRAMES[4]]
    data = packed_all(frames)
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            assert feed_all([data[:first], data[first:second], data[second:]]) == frames


def test_one_byte_at_a_time() -> None:
    assert feed_all([STREAM_OF_FRAMES[i : i + 1] for i in range(len(STREAM_OF_FRAMES))]) == FRAMES


@given(st.lists(st.integers(0, len(STREAM_OF_FRAMES)), max_size=12))
@settings(deadline=None)
def test_a_stream_cut_anywhere_often(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM_OF_FRAMES)]
    assert feed_all([STREAM_OF_FRAMES[a:b] for a, b in itertools.pairwise(edges)]) == FRAMES


def test_a_large_payload_may_also_come_through_feed_with_the_next_frame_behind_it() -> None:
    reader = AnswerReader()
    data = packed_all([FRAMES[3], FRAMES[1]])
    answers = [answer for start in range(0, len(data), 700) for answer in reader.feed(data[start : start + 700])]
    assert answers == [FRAMES[3], FRAMES[1]]
    assert not reader.gathering


def test_a_payload_beyond_the_first_allocation_is_gathered() -> None:
    payload = bytes(range(256)) * ((FIRST_ALLOCATION + FIRST_ALLOCATION // 2) // 256)
    data = packed((Kind.VALUE, 0, 0, 9, payload))
    [(kind, _, _, seq, gathered)] = feed_all([data[start : start + (1 << 20)] for start in range(0, len(data), 1 << 20)])
    assert (kind, seq) == (Kind.VALUE, 9)
    assert gathered == payload


def test_an_incomplete_frame_is_no_answer() -> None:
    for frame in FRAMES:
        assert feed_all([packed(frame)[:-1]]) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("version", 0), ("version", VERSION + 1), ("kind", 0), ("kind", Kind.TASK), ("kind", Kind.STOP), ("kind", 255),
     ("flags", 0x8000), ("flags", 0x80), ("length", 1 << 48), ("length", (1 << 64) - 1), ("stamp", 1)],
)  # fmt: skip
def test_a_header_that_no_worker_writes_is_malformed(field: str, value: int) -> None:
    fields = {"version": VERSION, "kind": Kind.VALUE, "flags": 0, "micros": 0, "seq": 1, "length": 0, "stamp": 0, field: value}
    reader = AnswerReader()
    assert reader.feed(HEADER.pack(*fields.values())) == []
    assert reader.malformed is not None
    assert "not an answer of a worker" in reader.malformed


def test_text_that_a_task_wrote_into_our_pipe_is_malformed() -> None:
    reader = AnswerReader()
    assert reader.feed(b"print() went into the wrong descriptor\n") == []
    assert reader.malformed is not None


def test_a_huge_claimed_length_allocates_little() -> None:
    reader = AnswerReader()
    tracemalloc.start()
    try:
        reader.feed(pack_header(Kind.VALUE, 1, (1 << 48) - 1))
        with reader.space() as space:
            assert len(space) <= FIRST_ALLOCATION
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= FIRST_ALLOCATION + 4096


def test_a_claimed_length_is_the_most_that_is_ever_allocated() -> None:
    reader = AnswerReader()
    reader.feed(pack_header(Kind.VALUE, 1, INLINE_BYTES + 1))
    with reader.space() as space:
        assert len(space) == INLINE_BYTES + 1 + STAMP.size


# --- host to worker


@pytest.mark.parametrize("kind", TASK_KINDS)
def test_a_task_frame_comes_back(kind: Kind) -> None:
    frame = pack(kind, 77, b"payload")
    assert unpack_header(frame) == (kind, 0, 77, 7, 0)
    assert frame[HEADER.size :] == b"payload"
    assert unpack_header(pack_header(kind, 78, 1 << 40, STREAM, 3)) == (kind, STREAM, 78, 1 << 40, 3)


def test_the_largest_inline_payload_makes_one_packet() -> None:
    assert len(pack(Kind.TASK, 1, bytes(INLINE_BYTES))) == PACKET_BYTES


def test_another_version_is_refused() -> None:
    with pytest.raises(MalformedFrame, match=f"frame of version {VERSION + 1}, expected {VERSION}"):
        unpack_header(bytes([VERSION + 1]) + pack(Kind.TASK, 1)[1:])


def test_kinds_of_tasks_and_answers_are_apart() -> None:
    assert sorted(Kind) == sorted(TASK_KINDS + ANSWER_KINDS)


# --- control messages


@pytest.mark.parametrize("ask", list(Ask))
def test_a_request_comes_back(ask: Ask) -> None:
    request = Request(ask, (1 << 64) - 1, (1 << 32) - 1, HAS_INITIALIZER)
    assert unpack_request(pack_request(*request)) == request
    assert unpack_request(pack_request(ask, 1)) == Request(ask, 1, 0, 0)


@pytest.mark.parametrize("tell", list(Tell))
def test_a_report_comes_back(tell: Tell) -> None:
    for report in (
        Report(tell),
        Report(tell, 3, (1 << 22), 139, 1 << 40, "no memory: ü\ud800 \N{SNOWMAN}".encode("utf-8", "replace").decode()),
        Report(tell, 4, 1, -1),
    ):
        assert unpack_report(pack_report(report)) == report


def test_a_text_that_no_encoding_knows_does_not_hinder_a_report() -> None:
    assert "\\ud800" in unpack_report(pack_report(Report(Tell.SPAWN_FAILED, text="bad \ud800"))).text


def test_a_long_text_is_cut_to_the_size_of_a_packet() -> None:
    data = pack_report(Report(Tell.START_FAILED, text="ü" * MAX_TEXT))
    assert len(data) <= PACKET
    assert unpack_report(data).text.startswith("üüü")


def test_what_is_incomplete() -> None:
    reader = AnswerReader()
    seen = [reader.incomplete]
    large = packed((Kind.VALUE, 0, 0, 2, bytes(10_000)), stamp=HEADER.size + 5)
    for piece in (b"\2\x0b", pack(Kind.VALUE, 1, b"small")[2:], large[: HEADER.size], large[HEADER.size : -1], large[-1:]):
        reader.feed(piece)
        assert reader.malformed is None
        seen.append(reader.incomplete)
    assert seen == [False, True, False, True, True, False]
    assert reader.seen == HEADER.size + 5 + len(large)


# --- what a worker did not write


def believed(reader: AnswerReader, data: bytes, cuts: list[int]) -> list[Answer]:
    """All answers that are found, whatever is wrong before them."""
    answers = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for a, b in itertools.pairwise(edges):
        answers += feed_all([data[a:b]], reader)
        while reader.malformed is not None:
            answers += reader.go_on()
    return answers


FIRST_STAMP = 0x00_3C_91_E0_07_55_AB_12  # any that is drawn: hardly to be met by accident
cuts = st.lists(st.integers(0, 6000), max_size=6)
foreign = st.one_of(
    st.binary(min_size=1, max_size=200),
    st.sampled_from([pack_header(Kind.VALUE, seq, length, stamp=stamp)
                     for seq in (1, 2) for length in (0, 1000, 1 << 47, 1 << 63) for stamp in (0, 1, FIRST_STAMP + 1)]),
    st.sampled_from([packed(frame, FIRST_STAMP + 7) for frame in FRAMES]),
)  # fmt: skip


@given(st.lists(st.binary(max_size=80), max_size=6), cuts)
@settings(deadline=None)
def test_whatever_comes_nothing_is_raised_or_believed(pieces: list[bytes], cuts: list[int]) -> None:
    assert believed(AnswerReader(FIRST_STAMP), b"".join(pieces), cuts) == []


@given(st.lists(foreign, min_size=len(FRAMES), max_size=len(FRAMES)), cuts)
@settings(deadline=None)
def test_what_is_written_between_answers_hides_none_of_them(between: list[bytes], cuts: list[int]) -> None:
    data, stamp = b"", FIRST_STAMP
    for frame, garbage in zip(FRAMES, between, strict=True):
        data += garbage + packed(frame, stamp)
        stamp += len(packed(frame))
    assert believed(AnswerReader(FIRST_STAMP), data, cuts) == FRAMES


@given(st.integers(HEADER.size, HEADER.size + 10_000), foreign, cuts)
@settings(deadline=None)
def test_what_is_written_into_the_middle_of_an_answer_spoils_that_one_alone(at: int, garbage: bytes, cuts: list[int]) -> None:
    large = (Kind.VALUE, 0, 0, 2, b"x" * 10_000)
    data = packed_all([FRAMES[1], large, FRAMES[4]], FIRST_STAMP)
    at += len(packed(FRAMES[1]))
    assert believed(AnswerReader(FIRST_STAMP), data[:at] + garbage + data[at:], cuts) == [FRAMES[1], FRAMES[4]]


@given(st.integers(0, len(STREAM_OF_FRAMES) - 1), st.integers(1, 255), cuts)
@settings(deadline=None)
def test_one_wrong_byte_in_a_true_stream(position: int, change: int, cuts: list[int]) -> None:
    data = bytearray(packed_all(FRAMES, FIRST_STAMP))
    data[position] ^= change
    believed(AnswerReader(FIRST_STAMP), bytes(data), cuts)


def test_a_copy_of_an_answer_is_none() -> None:
    frame = pack(Kind.VALUE, 1, b"x", stamp=FIRST_STAMP)
    reader = AnswerReader(FIRST_STAMP)
    assert reader.feed(frame + frame) == [(Kind.VALUE, 0, 0, 1, b"x")]
    assert reader.malformed is not None
    assert reader.go_on() == []


def test_answers_before_what_is_none_are_told_before_it() -> None:
    # They came in one read. The first one's task is not to be charged with what the second one's wrote.
    reader = AnswerReader()
    second = pack(Kind.VALUE, 2, b"y", stamp=HEADER.size + 1)
    assert reader.feed(pack(Kind.VALUE, 1, b"x") + b"garbage" * 20 + second) == [(Kind.VALUE, 0, 0, 1, b"x")]
    assert reader.malformed is not None
    assert reader.feed(b"more garbage" * 9) == [], "first the owner decides about what was malformed"
    assert reader.go_on() == [(Kind.VALUE, 0, 0, 2, b"y")]
    assert reader.malformed is not None


def test_a_part_that_will_never_be_whole_is_given_up() -> None:
    reader = AnswerReader(FIRST_STAMP)
    reader.feed(b"\2\x0b\0")
    assert reader.incomplete
    reader.lose("nothing comes")
    assert not reader.incomplete
    assert reader.malformed == "nothing comes"
    assert reader.go_on() == []
    assert reader.feed(pack(Kind.VALUE, 1, b"x", stamp=FIRST_STAMP)) == [(Kind.VALUE, 0, 0, 1, b"x")]
    assert reader.seen == HEADER.size + 1


def test_what_is_none_takes_no_memory() -> None:
    reader = AnswerReader(FIRST_STAMP)
    tracemalloc.start()
    try:
        for _ in range(300):
            reader.feed(b"y" * 100_000)
            reader.malformed = None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000

"""The queue of one between two threads."""

import threading

from decaf_ros.session.slot import Slot


def test_the_newest_wins_and_what_it_replaced_is_counted():
    slot: Slot[int] = Slot()
    for number in (1, 2, 3):
        slot.put(number)
    assert slot.take() == 3
    slot.put(4)
    assert slot.take() == 4
    assert slot.superseded == 2


def test_a_reader_waits_for_what_comes_and_leaves_when_the_slot_is_closed():
    slot: Slot[int] = Slot()
    taken: list[int | None] = []
    first = threading.Event()

    def read() -> None:
        taken.append(slot.take())
        first.set()
        taken.append(slot.take())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    slot.put(1)
    assert first.wait(5.0)
    slot.close()
    reader.join(5.0)
    assert taken == [1, None]


def test_a_closed_slot_is_empty_until_it_is_opened():
    slot: Slot[int] = Slot()
    slot.put(1)
    slot.close()
    slot.put(2)
    assert slot.take() is None
    slot.open()
    slot.put(3)
    assert slot.take() == 3

"""The checker of workers goes red on every fault that is planted, and on nothing else."""

import msgspec
import pytest

from tests.faults.worker_checker import Effect, Settled, Story, complaints

SENT = {f"{key}{n}": (key, n) for key in "ab" for n in range(3)}
EFFECTS = [Effect(f"{key}{n}", key, n, 1) for n in range(3) for key in "ab" if (key, n) != ("b", 1)]
SETTLES = [
    Settled("p", "one", "one", 1, 0, 2),
    Settled("p", "one", "one", 2, 2, 2),
    Settled("p", "two", "two", 1, 2, 5, "x"),
    Settled("q", "one", "one", 1, 0, 1),
]
GAVE_UP = ("gave_up", "1-7")
OWING, EMITTED = frozenset({"a0", "b1"}), {"a0": frozenset({"x"})}
GOOD = Story(SENT, EFFECTS, {"b1": [GAVE_UP]}, {"b1": "gave_up"}, 0, 0, False, SETTLES, OWING, EMITTED)


def with_(**changed: object) -> Story:
    return msgspec.structs.replace(GOOD, **changed)


def test_a_good_run_has_no_complaints() -> None:
    assert complaints(GOOD) == set()


@pytest.mark.parametrize(
    ("story", "says"),
    [
        (with_(effects=EFFECTS[:-1]), {"lost"}),
        (with_(effects=[*EFFECTS[:2], *EFFECTS[3:]]), {"lost"}),
        (with_(effects=[*EFFECTS, Effect("x9", "x", 9, 1)]), {"invented"}),
        (with_(effects=EFFECTS[::-1]), {"order"}),
        (with_(effects=[*EFFECTS, EFFECTS[0]]), {"doubled"}),
        (with_(buried={}), {"lost", "unburied", "unemitted"}),
        (with_(buried={"b1": [("schema", "1-7")]}), {"unburied"}),
        (with_(buried={"b1": [GAVE_UP, GAVE_UP]}), {"buried twice"}),
        (with_(buried={"b1": [GAVE_UP], "a2": [GAVE_UP]}), {"bystander"}),
        (with_(lag=1), {"pending"}),
        (with_(parked=1), {"pending"}),
        (with_(emitted={}), {"unemitted"}),
        (with_(emitted={"a0": frozenset({"x", "y"})}), {"emitted anew"}),
        (with_(emitted={**EMITTED, "b1": frozenset({"z"})}), {"emitted anew"}),
        (with_(settles=[*SETTLES, Settled("p", "one", "two", 3, 5, 5)]), {"unfenced"}),
        (with_(settles=[*SETTLES, Settled("p", "two", "two", 2, 5, 4)]), {"rewound"}),
        (with_(settles=[*SETTLES, Settled("q", "one", "one", 1, 1, 1)]), {"settled twice"}),
        (with_(settles=[*SETTLES[:3], Settled("p", "two", "two", 2, 5, 5, "x")]), {"settled twice"}),
    ],
)
def test_each_planted_fault_is_found(story: Story, says: set[str]) -> None:
    assert complaints(story) == says


def test_a_second_delivery_after_a_fault_is_counted_and_no_disorder() -> None:
    story = with_(effects=[*EFFECTS, EFFECTS[0]], faults=True)
    assert (complaints(story), story.doubles) == (set(), 1)

    story = with_(buried={"b1": [GAVE_UP, GAVE_UP]}, faults=True)
    assert complaints(story) == set()


def test_an_entry_that_was_appended_twice_has_two_letters_and_nobody_is_to_blame() -> None:
    assert complaints(with_(buried={"b1": [GAVE_UP, ("gave_up", "1-9")]}, faults=True)) == set()

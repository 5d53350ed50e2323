"""The checker of workers goes red on every fault that is planted, and on nothing else."""

import msgspec
import pytest

from tests.faults.worker_checker import Effect, Story, complaints

SENT = {f"{key}{n}": (key, n) for key in "ab" for n in range(3)}
EFFECTS = [Effect(f"{key}{n}", key, n, 1) for n in range(3) for key in "ab" if (key, n) != ("b", 1)]
GOOD = Story(SENT, EFFECTS, {"b1": {"gave_up"}}, {"b1": "gave_up"}, 0, 0, faults=False)


def with_(**changed: object) -> Story:
    return msgspec.structs.replace(GOOD, **changed)


def test_a_good_run_has_no_complaints() -> None:
    assert complaints(GOOD) == set()


@pytest.mark.parametrize(
    ("story", "says"),
    [
        (with_(effects=EFFECTS[1:]), "lost"),
        (with_(effects=[*EFFECTS, Effect("x9", "x", 9, 1)]), "invented"),
        (with_(effects=EFFECTS[::-1]), "order"),
        (with_(effects=[*EFFECTS, EFFECTS[0]]), "doubled"),
        (with_(buried={}), "unburied"),
        (with_(buried={"b1": {"schema"}}), "unburied"),
        (with_(buried={"b1": {"gave_up"}, "a0": {"gave_up"}}), "bystander"),
        (with_(lag=1), "pending"),
        (with_(parked=1), "pending"),
    ],
)
def test_each_planted_fault_is_found(story: Story, says: str) -> None:
    assert says in complaints(story)


def test_a_second_delivery_after_a_fault_is_counted_and_no_disorder() -> None:
    story = with_(effects=[*EFFECTS, EFFECTS[0]], faults=True)
    assert (complaints(story), story.doubles) == (set(), 1)

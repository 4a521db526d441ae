"""Plans: every value in one block, in the fewest that the limits allow; and what refusals teach."""

from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.plan import Block, Limits, Plan, Point, blocks
from drivers.modbus.register import NoValue, Register
from drivers.modbus.unit import Unit

LIMITS = Limits(125, 15)


def point(at: int, size: int = 1) -> Point:
    return Point(f"{at}/{size}", "holding", at, size, lambda data, offset: 0)


def spans(plan: list[Block]) -> list[tuple[int, int]]:
    return [(block.at, block.size) for block in plan]


@given(
    st.lists(st.builds(point, st.integers(0, 400), st.integers(1, 4)), min_size=1, max_size=60),
    st.integers(0, 20),
)
def test_every_value_is_whole_in_one_block(points: list[Point], hole_max: int) -> None:
    plan = blocks(points, Limits(20, hole_max), ())
    assert sorted(one.name for block in plan for one in block.points) == sorted(one.name for one in points)
    for block in plan:
        assert block.size <= 20
        assert all(block.at <= one.at and one.end <= block.end for one in block.points)


def test_holes_are_read_along_up_to_a_size() -> None:
    assert spans(blocks([point(0), point(16), point(33)], LIMITS, ())) == [(0, 17), (33, 1)]
    assert spans(blocks([point(0), point(2)], Limits(125, 0), ())) == [(0, 1), (2, 1)]


def test_a_value_is_not_torn_at_a_limit() -> None:
    assert spans(blocks([point(at, 4) for at in range(0, 40, 4)], Limits(10, 0), ())) == [
        (at, 8) for at in range(0, 40, 8)
    ]


class Device:
    """Has some addresses, and gives so many registers at a time. Counts requests."""

    def __init__(self, there: set[int], registers_max: int, code_for_size: bool) -> None:
        self.there = there
        self.registers_max = registers_max
        self.code_for_size = code_for_size

    def read_all(self, plan: Plan) -> tuple[set[str], int]:
        """Names of values that were read in one poll, and the number of requests."""
        read, requests, queue = set(), 0, list(plan.blocks)
        while queue:
            one = queue.pop(0)
            requests += 1
            too_large = one.size > self.registers_max
            if not too_large and self.there.issuperset(range(one.at, one.end)):
                plan.took(one)
                read |= {each.name for each in one.points}
            else:
                queue[:0] = plan.cut(one, for_size=too_large and self.code_for_size) or ()
        plan.went_through()
        return read, requests


@given(
    st.sets(st.integers(0, 120), min_size=1, max_size=40),
    st.sets(st.integers(0, 130), max_size=60),
    st.integers(4, 125),
    st.booleans(),
)
def test_what_a_unit_has_is_read_in_every_poll_and_in_the_end_without_detours(
    wanted: set[int], more: set[int], registers_max: int, code_for_size: bool
) -> None:
    device = Device(wanted | more, registers_max, code_for_size)
    points = [point(at) for at in sorted(wanted)]
    plan = Plan(points, LIMITS, ())
    names = {one.name for one in points}
    for _ in range(150):
        assert device.read_all(plan)[0] == names
    _, requests = device.read_all(plan)
    assert requests == len(plan.blocks)
    again = Plan(points, LIMITS, plan.learned)
    assert device.read_all(again) == (names, requests)
    if code_for_size and device.there.issuperset(range(max(wanted) + 1)):
        assert requests == len(blocks(points, Limits(registers_max, 15), ()))


@given(
    st.lists(
        st.builds(
            Register,
            at=st.integers(0, 20),
            type=st.sampled_from(("uint16", "int16", "uint32", "int64", "float32", "bcd")),
            scale=st.sampled_from((1.0, 0.1, 0.001, 10.0, 0.25)),
            offset=st.sampled_from((0.0, 5.0)),
            word_order=st.sampled_from(("big", "little")),
            invalid=st.sampled_from((None, 7)),
        ),
        min_size=1,
        max_size=8,
    ),
    st.binary(min_size=60, max_size=60),
)
def test_values_unpacked_at_once_are_those_of_their_decoders(registers: list[Register], data: bytes) -> None:
    unit = Unit(address=1, device="one", registers={str(number): one for number, one in enumerate(registers)})
    ((_, points),) = unit.classes().items()
    (block,) = blocks(points, Limits(125, 20), ())
    data = data[2 * block.at :]
    values, quality = block.values(data)
    assert values.keys() | quality.keys() == unit.registers.keys()
    for point in points:
        try:
            expected = point.decode(data, 2 * (point.at - block.at))
        except NoValue as error:
            assert quality[point.name] == str(error)
        else:
            assert values[point.name] == expected

"""Programs drawn at random run by formula as they run by torch."""

import random_programs
from random_programs import calls, drawn


def test_a_program_is_known_by_its_seed_and_number():
    first, again, other = drawn(0, 3), drawn(0, 3), drawn(1, 3)
    assert first == again != other
    assert 3 <= sum(not line.leaf for line in first.lines) <= 13


def test_every_function_of_the_table_can_be_drawn():
    assert len(calls()) > 500
    builder = random_programs.Builder(random_programs.random.Random(0))
    for path, recipe in calls().items():
        builder.name, builder.path = path.rpartition(".")[2], path
        arguments = recipe(builder)
        assert arguments is None or all(isinstance(a, str) for a in arguments), path

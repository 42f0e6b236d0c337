"""Limits are plain positive numbers with a unit in their names, and fit each other."""

from troth import limits


def named() -> dict[str, int]:
    return {name: value for name, value in vars(limits).items() if name.endswith("_max")}


def test_every_limit_is_a_positive_whole_number() -> None:
    assert named()
    for name, value in named().items():
        assert type(value) is int, name
        assert value > 0, name


def test_nothing_else_stands_in_the_file() -> None:
    others = {name for name in vars(limits) if not name.startswith(("_", "@"))} - named().keys()
    assert others == {"Final"}


def test_the_contract() -> None:
    assert limits.payload_bytes_max == 1_048_576
    assert limits.payload_depth_max == 100
    assert (limits.id_start_length_max, limits.id_length_max, limits.name_length_max) == (128, 255, 100)
    assert (limits.tags_max, limits.tag_length_max) == (32, 200)
    assert limits.timeout_days_max == 36_500
    assert (limits.batch_items_max, limits.search_limit_max) == (10_000, 1_000)
    assert (limits.attempts_max, limits.journal_entries_max) == (5, 100_000)
    assert (limits.children_max, limits.waits_per_promise_max) == (10_000, 10_000)
    assert (limits.error_message_bytes_max, limits.error_traceback_bytes_max) == (10_240, 20_480)


def test_a_stored_error_fits_into_a_payload_with_all_its_causes() -> None:
    one = (
        limits.error_message_bytes_max
        + limits.error_traceback_bytes_max
        + limits.error_causes_max * limits.error_member_bytes_max
    )
    assert one * (limits.error_causes_max + 1) <= limits.payload_bytes_max / 2


def test_a_name_fits_below_an_id_given_to_start() -> None:
    assert limits.id_start_length_max + len("~") + limits.name_length_max <= limits.id_length_max

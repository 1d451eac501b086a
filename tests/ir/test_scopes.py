"""Free names."""

from __future__ import annotations

from caffeconv.ir.scopes import Scopes


def test_names_are_free() -> None:
    scopes = Scopes(["data"])
    assert [scopes.new_name("data"), scopes.new_name("data"), scopes.new_name("x")] == ["data_2", "data_3", "x"]


def test_what_was_noted_is_found_again_in_the_scope() -> None:
    scopes = Scopes([])
    scopes.enter("a", ("y",), ())
    scopes.keep("mask", "m")
    scopes.enter("b", ("z",), ())
    scopes.resume("a", ("y",), ())
    assert scopes.kept("mask") == "m"

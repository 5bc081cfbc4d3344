"""A plug-in is imported on use; what is missing is told with the command that installs it."""

import sys

import pytest

from hedgerow.errors import ExtraNotInstalledError, PluginError, UnknownNameError
from hedgerow.plugins import Plugin, is_reference, load_plugin, load_user_plugin, offered_names
from tests.distributions import install_distribution

TABLE = {
    "pi": Plugin("math:pi"),
    "absent": Plugin("no_such_package.inner:thing", "compile"),
    "ours": Plugin("hedgerow.no_such_module:thing", "compile"),
    "sleeper": Plugin("wave:open"),
}


def test_a_plugin_is_what_its_reference_names():
    assert load_plugin("number", TABLE, "pi") == pytest.approx(3.14159, abs=1e-5)


def test_nothing_is_imported_before_use():
    sys.modules.pop("wave", None)
    load_plugin("number", TABLE, "pi")
    assert "wave" not in sys.modules

    load_plugin("number", TABLE, "sleeper")
    assert "wave" in sys.modules


def test_an_unknown_name_lists_the_known():
    with pytest.raises(UnknownNameError, match="no exporter is called 'x'; choose one of: absent, ours, pi, sleeper"):
        load_plugin("exporter", TABLE, "x")


def test_a_missing_package_names_the_extra():
    with pytest.raises(ExtraNotInstalledError) as caught:
        load_plugin("exporter", TABLE, "absent")

    assert (caught.value.extra, caught.value.missing) == ("compile", "no_such_package")


def test_a_missing_module_of_our_own_is_a_bug_not_a_missing_extra():
    with pytest.raises(ModuleNotFoundError):
        load_plugin("exporter", TABLE, "ours")


OWN = "hedgerow.test_things"


def test_what_a_distribution_offers_is_found_by_its_name(tmp_path, monkeypatch):
    install_distribution(tmp_path, "offers_thing", "thing = 41\n", {OWN: {"mine": "offers_thing:thing"}})
    assert offered_names(OWN) == ()
    monkeypatch.syspath_prepend(tmp_path)

    assert offered_names(OWN) == ("mine",)
    assert "offers_thing" not in sys.modules
    assert load_user_plugin("thing", "mine", group=OWN) == 41


def test_what_a_file_holds_is_found_by_its_path(tmp_path):
    (tmp_path / "own_thing.py").write_text("thing = 42\n")
    assert load_user_plugin("thing", f"{tmp_path}/own_thing.py:thing", group=OWN) == 42


def test_a_name_that_nobody_offers_lists_all_that_are_known(tmp_path, monkeypatch):
    install_distribution(tmp_path, "offers_more", "", {OWN: {"mine": "offers_more:thing"}})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownNameError, match="no thing is called 'x'; choose one of: mine, ours"):
        load_user_plugin("thing", "x", group=OWN, known=["ours"])


def test_two_distributions_that_offer_one_name_are_told_apart_by_nobody(tmp_path, monkeypatch):
    for name in ("offers_one", "offers_two"):
        install_distribution(tmp_path, name, "", {OWN: {"mine": f"{name}:thing"}})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="found offers_one:thing and offers_two:thing; uninstall one"):
        load_user_plugin("thing", "mine", group=OWN)


@pytest.mark.parametrize(
    ("text", "attribute", "said"),
    [
        ("thing = 1\n", "other", "has no 'other'; it has thing"),
        ("import no_such_package_anywhere\n", "thing", "asks for a module that is absent"),
        ("1 / 0\n", "thing", "raised ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)\n", "thing", "raised SystemExit: 3"),
        (None, "thing", "there is no such file"),
    ],
)
def test_what_cannot_be_imported_is_said_of_the_plugin_and_of_no_task(tmp_path, text, attribute, said):
    if text is not None:
        (tmp_path / "broken_thing.py").write_text(text)
    with pytest.raises(PluginError, match=said) as caught:
        load_user_plugin("thing", f"{tmp_path}/broken_thing.py:{attribute}", group=OWN)
    assert "the thing" in str(caught.value)
    assert "task" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("mine.py:Mine", True),
        ("/some/where/mine.py:Mine", True),
        ("package.module:Mine", True),
        ("math:pi", True),
        ("dirichlett:user", False),
        ("dirichlet:0.1", False),
        ("fedavg", False),
        (":Mine", False),
        ("mine.py:", False),
        ("mine.py:not an attribute", False),
    ],
)
def test_a_misspelt_name_with_an_argument_is_no_reference(name, claim):
    assert is_reference(name) is claim


@pytest.mark.parametrize("name", ["strat.py", "strat.py:", "strat"])
def test_a_name_that_means_a_file_is_told_how_to_name_what_is_in_it(tmp_path, monkeypatch, name):
    (tmp_path / "strat.py").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError) as caught:
        load_user_plugin("strategy", name, group="hedgerow.nothing", known=["fedavg"])
    assert str(caught.value) == (
        f"no strategy is called {name!r}; name the strategy in the file, as strat.py:attribute"
    )


def test_a_name_too_long_for_a_path_is_unknown_and_no_error_of_the_disk():
    with pytest.raises(UnknownNameError, match=r"choose one of: fedavg$"):
        load_user_plugin("strategy", "x" * 5000, group="hedgerow.nothing", known=["fedavg"])


def test_the_program_that_runs_is_a_module(monkeypatch):
    # As under `hedgerow`: what runs has no specification.
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert is_reference("__main__:Mine")
    with pytest.raises(PluginError, match="__main__ has no 'Mine'; it has"):
        load_user_plugin("thing", "__main__:Mine", group=OWN)


def test_a_name_that_nobody_can_ask_for_is_not_offered_and_said(tmp_path, monkeypatch, caplog):
    points = {OWN: {"mine": "offers_plus:thing", "a+b": "offers_plus:thing"}}
    install_distribution(tmp_path, "offers_plus", "thing = 1\n", points)
    monkeypatch.syspath_prepend(tmp_path)

    assert offered_names(OWN) == ("a+b", "mine")
    assert caplog.messages == []
    with pytest.raises(UnknownNameError) as caught:
        load_user_plugin("thing", "x", group=OWN, reserved="+")
    assert caught.value.known == ("mine",)
    (said,) = caplog.messages
    assert said.startswith(
        f"'a+b', which an installed package offers under {OWN}, cannot be chosen: its name holds '+'"
    )

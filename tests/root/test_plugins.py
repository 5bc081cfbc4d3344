"""A plug-in is imported on use; what is missing is told with the command that installs it."""

import sys

import pytest

from hedgerow.errors import ExtraNotInstalledError, UnknownNameError
from hedgerow.plugins import Plugin, load_plugin

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

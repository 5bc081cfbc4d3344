import hashlib
import logging
import os

from hypothesis import given
from hypothesis import strategies as st

from hedgerow.compile.cache import (
    CachedResult,
    ResultCache,
    _decode,
    _encode,
    blobs_named,
    default_cache_folder,
    result_key,
)

CONTENT = b"\x00weights\n"
SHA = hashlib.sha256(CONTENT).hexdigest()
RESULT = CachedResult("artifact", {"blob": {"sha256": SHA, "length_bytes": len(CONTENT)}}, {SHA: CONTENT})


def entries(folder) -> list:
    return sorted(path for path in folder.rglob("*.result"))


def test_what_is_stored_comes_back(tmp_path):
    cache = ResultCache(tmp_path)
    key = result_key({"weights": "a"})
    assert cache.load(key) is None
    cache.store(key, RESULT)
    assert ResultCache(tmp_path).load(key) == RESULT
    assert cache.load(result_key({"weights": "b"})) is None


@given(st.dictionaries(st.binary(max_size=40), st.none(), max_size=4), st.text(max_size=20))
def test_entries_of_any_blobs_come_back(contents, text):
    blobs = {hashlib.sha256(content).hexdigest(): content for content in contents}
    result = CachedResult("reference", {"note": text}, blobs)
    assert _decode(_encode(result)) == result


def test_a_damaged_entry_is_no_entry_and_is_removed(tmp_path, caplog):
    cache = ResultCache(tmp_path)
    key = result_key({})
    for damage in (lambda b: b[:-1], lambda b: b[:70] + b"!" + b[71:], lambda b: b"", lambda b: b + b"x"):
        cache.store(key, RESULT)
        (path,) = entries(tmp_path)
        path.write_bytes(damage(path.read_bytes()))
        with caplog.at_level(logging.WARNING):
            assert cache.load(key) is None
        assert "damaged" in caplog.text
        assert entries(tmp_path) == []
        caplog.clear()


def test_the_least_recently_used_entries_go_first(tmp_path):
    size = len(_encode(RESULT))
    cache = ResultCache(tmp_path, limit_bytes=2 * size)
    keys = [result_key({"n": n}) for n in range(3)]
    for age, key in zip((300, 200, 100), keys, strict=True):
        cache.store(key, RESULT)
        path = tmp_path / "v1" / key[:2] / f"{key}.result"
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert cache.load(keys[0]) is not None  # now it is the youngest
    cache.prune()
    assert [cache.load(key) is not None for key in keys] == [True, False, True]


def test_what_a_killed_process_left_half_written_goes_after_an_hour(tmp_path):
    cache = ResultCache(tmp_path)
    cache.store(result_key({}), RESULT)
    folder = entries(tmp_path)[0].parent
    old, new = folder / ".a.part", folder / ".b.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.prune()
    assert not old.exists()
    assert new.exists()


def test_a_folder_that_cannot_be_written_costs_nothing_but_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    cache = ResultCache(tmp_path / "file")
    with caplog.at_level(logging.WARNING):
        cache.store("0" * 64, RESULT)
        cache.store("1" * 64, RESULT)
    assert cache.load("0" * 64) is None
    cache.prune()
    assert caplog.text.count("results are not kept") == 1


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HEDGEROW_CACHE", str(tmp_path))
    assert default_cache_folder() == tmp_path
    monkeypatch.delenv("HEDGEROW_CACHE")
    assert default_cache_folder().parts[-2:] == (".cache", "hedgerow")


def test_blobs_are_found_at_any_depth():
    blob = {"sha256": SHA, "length_bytes": 1}
    assert blobs_named({"a": [{"b": blob}, blob], "c": {"sha256": SHA}}) == [SHA]

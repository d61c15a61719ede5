"""The cache of generated arrays: never wrong, and never in the way."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nlx.data.cache import cache_dir, cached
from nlx.files import replacing

ARRAYS = {"a": np.arange(1000), "b": np.array(["x", "yz"])}


class Generator:
    """Counts how often it has to work."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {key: array.copy() for key, array in ARRAYS.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NLX_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


def check(arrays):
    assert arrays.keys() == ARRAYS.keys()
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[key], array)


def test_generates_once(folder):
    generate = Generator()
    for _ in range(3):
        check(cached("x_v1", generate))
    assert generate.calls == 1
    assert [p.name for p in folder.iterdir()] == ["x_v1.npz"]  # no temporary file is left
    check(cached("x_v2", generate))
    assert generate.calls == 2


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "flipped bit", "pickle"])
def test_broken_file_is_generated_anew(folder, damage):
    generate = Generator()
    cached("x", generate)
    path = folder / "x.npz"
    content = path.read_bytes()
    if damage == "pickle":
        np.savez(path, a=np.array([{}], dtype=object))
    else:
        flipped = content[:600] + bytes([content[600] ^ 1]) + content[601:]
        path.write_bytes(
            {"empty": b"", "garbage": b"no npz", "truncated": content[:-30], "flipped bit": flipped}[damage]
        )
    check(cached("x", generate))
    assert generate.calls == 2
    check(cached("x", generate))
    assert generate.calls == 2


def test_folder_that_cannot_be_made_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NLX_CACHE", str(tmp_path / "file" / "cache"))
    generate = Generator()
    check(cached("x", generate))
    check(cached("x", generate))
    assert generate.calls == 2


def test_failed_write_leaves_nothing_behind(folder, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr("nlx.data.cache.np.savez", full)
    check(cached("x", Generator()))
    assert list(folder.iterdir()) == []


def test_threads_that_write_one_file_do_not_mix(tmp_path):
    both_are_writing = threading.Barrier(2, timeout=60)

    def write(text):
        with replacing(tmp_path / "x") as file:
            file.write(text)
            both_are_writing.wait()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, [b"one" * 10, b"two" * 20]))
    assert (tmp_path / "x").read_bytes() in (b"one" * 10, b"two" * 20)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_default_folder_is_in_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("NLX_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "nlx"

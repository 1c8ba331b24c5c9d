"""What was computed once is read again, bit for bit; what would differ never is."""

import pytest
import torch

import miue_lib as mi
from miue_lib import cache as module


@pytest.fixture
def counted(monkeypatch):
    """How often something was really computed."""
    calls = []
    for name in ("craft", "fit"):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _real=real, _name=name, **k: calls.append(_name) or _real(*a, **k))
    return calls


def test_noise_is_crafted_once(tmp_path, tiny, counted):
    cache = mi.Cache(tmp_path / "new" / "folder")
    first = cache.craft("random", tiny, epsilon=8 / 255, seed=1)
    again = cache.craft("random", tiny, epsilon=8 / 255, seed=1)
    assert counted == ["craft"]
    assert torch.equal(first.levels, again.levels) and first.fingerprint == again.fingerprint
    assert torch.equal(first.levels, mi.craft("random", tiny, epsilon=8 / 255, seed=1).levels)
    cache.craft("random", tiny, epsilon=8 / 255, seed=2)
    cache.craft("random", tiny, epsilon=4 / 255, seed=1)
    cache.craft("random", tiny.subset(slice(0, 50)), epsilon=8 / 255, seed=1)
    assert counted == ["craft"] * 4


def test_a_victim_is_trained_once(tmp_path, easy, counted):
    train, test = easy
    cache = mi.Cache(tmp_path)
    settings = {"epochs": 2, "batch_size": 32, "crop": 1}
    victim, history = cache.fit("small_resnet", train, test=test, seed=3, **settings)
    again, same_history = cache.fit("small_resnet", train, test=test, seed=3, **settings)
    assert counted == ["fit"]
    assert same_history == history and len(history.test_accuracy) == 2
    assert torch.equal(mi.features(victim, test), mi.features(again, test))
    assert again.training == victim.training
    for changed in ({"seed": 4}, {"epochs": 1}, {"test": None}):
        cache.fit("small_resnet", train, **({"test": test, "seed": 3} | settings | changed))
    assert counted == ["fit"] * 4


def test_another_library_or_machine_reads_nothing(tmp_path, tiny, counted, monkeypatch):
    cache = mi.Cache(tmp_path)
    cache.craft("random", tiny)
    monkeypatch.setattr(module, "_library", lambda: "another")
    cache.craft("random", tiny)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    cache.craft("random", tiny)
    assert counted == ["craft"] * 3


def test_what_is_not_whole_is_computed_again(tmp_path, tiny, easy, counted):
    cache = mi.Cache(tmp_path)
    settings = {"epochs": 1, "batch_size": 64}
    cache.craft("random", tiny)
    before, _ = cache.fit("small_resnet", easy[0], **settings)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    cache.craft("random", tiny)
    after, _ = cache.fit("small_resnet", easy[0], **settings)
    assert sorted(counted) == ["craft", "craft", "fit", "fit"]
    assert torch.equal(before.head.weight, after.head.weight)
    assert len(list(tmp_path.iterdir())) == 2  # mended, and nothing beside


def test_profile_settings_and_progress(tmp_path, tiny):
    cache = mi.Cache(tmp_path)
    lines = []
    quick = {"epochs": 1, "steps": 1, "surrogate": "small_resnet", "noise_batch_size": 48}
    cache.craft("miue", tiny, progress=lines.append, **quick)
    assert lines
    lines.clear()
    cache.craft("miue", tiny, progress=lines.append, **quick)
    assert not lines


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder: got '.*file', expected a folder"):
        mi.Cache(tmp_path / "file")

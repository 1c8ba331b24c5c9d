"""What was computed once is read again, bit for bit; what would differ never is."""

import os
from functools import partial

import pytest
import torch

import miue_lib as mi
from miue_lib import cache as module
from miue_lib.noise import Method


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


def names(cache, easy, **changed):
    """The file that a victim would be kept in."""
    given = {"kind": "victim", "known": mi.MODELS, "name": "small_resnet", "settings": {"a": {"b": 1}}} | changed
    sets = given.pop("sets", easy)
    return cache._path(given["kind"], given["known"], given["name"], given["settings"], *sets)


def test_whatever_changes_the_content_changes_the_name(tmp_path, tiny, easy, monkeypatch):
    cache = mi.Cache(tmp_path)
    train, test = easy
    more_classes = mi.ImageSet(train.images, train.labels, tuple("abcde"))
    found = [
        names(cache, easy, **changed)
        for changed in (
            {},
            {"name": "resnet18"},
            {"kind": "noise"},
            {"settings": {"a": {"b": 2}}},
            {"settings": {"a": {"b": 1}, "c": None}},
            {"sets": (train,)},
            {"sets": (train, tiny)},
            {"sets": (test, train)},
            {"sets": (more_classes, test)},  # another head
        )
    ]
    for owner, name, value in (
        (module, "_LIBRARY", "another"),
        (torch, "__version__", "0"),
        (module.torchvision, "__version__", "0"),
        (torch, "get_num_threads", lambda: 99),
        (torch._C, "_get_mkldnn_enabled", lambda: None),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, value)
            found.append(names(cache, easy))
    assert len(set(found)) == len(found)
    assert names(cache, easy) == found[0]


def test_the_digest_is_of_every_source(tmp_path, monkeypatch):
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "em.py").write_text("a = 1")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "cache.py"))
    before = module._digest_of_source()
    (tmp_path / "noise" / "em.py").write_text("a = 2")
    assert module._digest_of_source() != before != module._LIBRARY


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, s: c.fit("small_resnet", s, on_epoch=print), "settings['on_epoch']: got builtin_function_or_method"),
        (lambda c, s: c.craft("em", s, surrogate=mi.build("small_resnet", s)), "settings['surrogate']: got Classifier"),
        (
            lambda c, s: c.craft("random", s, epsilon=torch.tensor(0.1)),
            "settings['epsilon']: got Tensor, expected a pl",
        ),
        (lambda c, s: c.craft("none", s), "method: got 'none', expected one of"),
        (lambda c, s: c.fit("none", s), "model: got 'none', expected one of"),
    ],
)
def test_what_has_no_name_is_refused(tmp_path, tiny, call, message):
    with pytest.raises(ValueError) as error:
        call(mi.Cache(tmp_path), tiny)
    assert str(error.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_foreign_methods_are_refused(tmp_path, tiny, monkeypatch):
    monkeypatch.setitem(mi.METHODS, "mine", Method(lambda images, **settings: None, "mine", "free", "none", "sample"))
    with pytest.raises(ValueError, match="noise: got 'mine' of .*, expected a method or model of this library"):
        mi.Cache(tmp_path).craft("mine", tiny)


def test_threads_may_write_the_same_file(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    from miue_lib._files import write_whole

    contents = [bytes([i]) * 100_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: write_whole(tmp_path / "file", data), contents))
    assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


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


def test_calls_at_once_keep_their_order_and_one_thread_each(tmp_path, tiny, monkeypatch):
    cache = mi.Cache(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = list(cache.at_once([lambda n=n: (n, torch.get_num_threads(), os.getpid()) for n in range(8)]))
    assert [n for n, _, _ in found] == list(range(8))
    assert {threads for _, threads, _ in found} == {1}
    assert os.getpid() not in {pid for _, _, pid in found}
    assert list(cache.at_once([torch.get_num_threads])) == [1], "a single one is kept under the same name"
    noises = list(cache.at_once([partial(cache.craft, "random", tiny, seed=seed) for seed in (1, 2)]))
    assert torch.equal(noises[1].levels, mi.craft("random", tiny, seed=2).levels)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ValueError, match="method: got 'none', expected one of"):
        list(cache.at_once([partial(cache.craft, name, tiny) for name in ("random", "none")]))


def test_with_a_gpu_calls_are_made_here(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert set(mi.Cache(tmp_path).at_once([os.getpid, os.getpid])) == {os.getpid()}

"""What was computed once is read again, bit for bit; what would differ never is."""

import copy
import math
import os
from functools import partial

import numpy as np
import pytest
import torch

import miue_lib as mi
from miue_lib import cache as module
from miue_lib import train as of_the_library
from miue_lib.defenses import Cutout, MixUp, bit_depth
from miue_lib.noise import Method
from miue_lib.theory.accuracy import information_range


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


def test_a_defense_and_a_start_are_part_of_the_name(tmp_path, easy, counted):
    train, _ = easy
    cache = mi.Cache(tmp_path)
    settings = {"epochs": 1, "batch_size": 64}
    for _ in range(2):
        for defense in (None, Cutout(size=2), Cutout(size=4), MixUp()):
            cache.fit("small_resnet", train, defense=defense, **settings)
        for seed in (7, 8):
            cache.fit("small_resnet", train, start=mi.build("small_resnet", train, seed=seed), **settings)
    assert counted == ["fit"] * 6
    assert not list(tmp_path.glob("*.checkpoint"))


def test_a_victim_begins_with_the_features_of_its_start(tmp_path, easy):
    train, _ = easy
    start = mi.build("small_resnet", train, seed=9)
    settings = {"epochs": 1, "batch_size": 192, "learning_rate": 1e-12}
    victim, _ = mi.Cache(tmp_path).fit("small_resnet", train, seed=1, start=start, **settings)
    fresh = mi.build("small_resnet", train, seed=1)
    assert torch.equal(victim.body[2].weight, start.body[2].weight)
    assert torch.equal(victim.head.weight, fresh.head.weight)
    assert not torch.equal(victim.body[2].weight, fresh.body[2].weight)


def test_a_victim_that_was_stopped_goes_on(tmp_path, easy, counted):
    train, _ = easy
    cache = mi.Cache(tmp_path)
    settings = {"epochs": 3, "batch_size": 64}

    def stop(epoch, history):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.fit("small_resnet", train, on_epoch=stop, **settings)
    (checkpoint,) = tmp_path.glob("*.checkpoint")
    epochs = []
    victim, history = cache.fit("small_resnet", train, on_epoch=lambda e, _: epochs.append(e), **settings)
    assert epochs == [3] and not checkpoint.exists()
    expected, curves = mi.Cache(tmp_path / "other").fit("small_resnet", train, **settings)
    assert curves.loss == history.loss and torch.equal(expected.head.weight, victim.head.weight)
    path = next(tmp_path.glob("victim-*.safetensors"))
    path.unlink()
    path.with_suffix(".checkpoint").write_bytes(b"not one")
    _, again = cache.fit("small_resnet", train, **settings)
    assert again.loss == history.loss and not path.with_suffix(".checkpoint").exists()


def test_defended_pictures_are_made_once(tmp_path, tiny, monkeypatch):
    cache = mi.Cache(tmp_path)
    made = [cache.pictures(bit_depth, tiny, bits=bits) for bits in (1, 2, 1)]
    assert len(list(tmp_path.iterdir())) == 2
    expected = bit_depth(tiny, bits=1)
    for images in (made[0], made[2]):
        assert torch.equal(images.images, expected.images) and torch.equal(images.labels, tiny.labels)
        assert (images.name, images.classes, images.fingerprint) == (
            expected.name,
            tiny.classes,
            expected.fingerprint,
        )
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:50])
    assert {cache.pictures(bit_depth, tiny, bits=bits).fingerprint for bits in (1, 2)} == {
        images.fingerprint for images in made
    }
    with pytest.raises(ValueError, match="function: got '.*<lambda>', expected a function at the top of a module"):
        cache.pictures(lambda images: images, tiny)


def names(cache, easy, **changed):
    """The file that a victim would be kept in."""
    given = {"kind": "victim", "name": "small_resnet", "arguments": easy, "settings": {"a": {"b": 1}}} | changed
    return cache._path(**given)


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
            {"arguments": (train,)},
            {"arguments": (train, tiny)},
            {"arguments": (test, train)},
            {"arguments": (more_classes, test)},  # another head
        )
    ]
    for owner, name, value in (
        (module, "LIBRARY", "another"),
        (module, "_version", lambda package: "0"),
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
    assert module._digest_of_source() != before != module.LIBRARY


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, s: c.fit("small_resnet", s, defense=print), "settings['defense']: got builtin_function_or_method"),
        (
            lambda c, s: c.fit("small_resnet", s, start=mi.build("linear", s)),
            "start: got a linear for pictures of (1, 12, 12), expected a small_resnet for pictures of (1, 12, 12)",
        ),
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
    with pytest.raises(ValueError, match="method: got 'mine' of .*, expected a method of this library"):
        mi.Cache(tmp_path).craft("mine", tiny)
    monkeypatch.setitem(mi.MODELS, "mine", lambda images: (torch.nn.Flatten(), 144))
    with pytest.raises(ValueError, match="model: got 'mine' of .*, expected a model of this library"):
        mi.Cache(tmp_path).fit("mine", tiny)


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


@pytest.fixture
def calls():
    return []


@pytest.fixture
def new_function(monkeypatch, calls):
    """Functions that are the library's own for the length of a test: they count their calls and return `value`."""

    def new(home=of_the_library):
        def measure(*arguments, value=None, **settings):
            calls.append(home)
            return value

        measure.__module__, measure.__qualname__ = home.__name__, "measure"
        monkeypatch.setattr(home, "measure", measure, raising=False)
        return measure

    return new


def test_a_value_is_computed_once_and_keeps_every_digit(tmp_path, new_function, calls):
    cache, measure = mi.Cache(tmp_path / "new" / "folder"), new_function()
    value = {"numbers": [0.1 + 0.2, 5e-324, -0.0, 2**70], "others": (None, True, "ε", np.float64(0.1)), 3: {}}
    first, again = (cache.keep(measure, value=value) for _ in range(2))
    assert len(calls) == 1
    assert repr(first) == repr(again)  # == takes -0.0 for 0.0, and NumPy's numbers for Python's
    assert repr(first["numbers"]) == repr(value["numbers"])
    assert first == {"numbers": value["numbers"], "others": [None, True, "ε", 0.1], "3": {}}
    (path,) = cache.folder.iterdir()
    assert path.match("reading-measure-*.json")
    assert cache.keep(measure, value=None) is cache.keep(measure, value=None) is None
    assert len(calls) == 2


def test_a_reading_is_known_by_what_the_arguments_hold(tmp_path, easy, new_function, calls):
    train, test = easy
    model = mi.build("small_resnet", train)
    points = torch.linspace(0, 1, 6)

    def changed(change):
        copied = copy.deepcopy(model)
        with torch.no_grad():
            change(copied)
        return copied

    def with_one_more(tensor, index):
        tensor = tensor.clone()
        tensor[index] ^= 1  # one level of a pixel, or the label 0 instead of 1
        return tensor

    def next_number(tensor):
        tensor.view(-1)[0] = torch.nextafter(tensor.view(-1)[0], torch.tensor(math.inf))
        return tensor

    different = [
        (model, train),
        (train, model),
        (changed(lambda m: next_number(m.head.weight)), train),
        (changed(lambda m: next_number(m.body[3].running_mean)), train),
        (changed(lambda m: m.eval()), train),
        (changed(lambda m: m.eval().body[3].train()), train),  # as a whole in the mode of the one before
        (changed(lambda m: m.body[3].eval()), train),
        (changed(lambda m: setattr(m, "class_names", ("a", "b", "c"))), train),
        (changed(lambda m: setattr(m, "picture_shape", (1, 13, 13))), train),
        (changed(lambda m: setattr(m, "architecture", "resnet18")), train),
        (mi.build("small_resnet", train, seed=1), train),
        (model, test),
        (model, mi.ImageSet(with_one_more(train.images, (5, 0, 3, 3)), train.labels)),
        (model, mi.ImageSet(train.images, with_one_more(train.labels, 1))),
        (model, mi.ImageSet(train.images, train.labels, tuple("abc"))),
        (model, train, 0),
        (model, train, 0.0),
        (points,),
        (next_number(points.clone()),),
        (points.double(),),
        (points[:, None],),
        (points.view(torch.int32),),
        (points[:5],),
        (points[:0],),
        (points[0],),
        (points.bfloat16(),),
        (points.tolist(),),
        ({"a": 0, "b": 1},),
        ({"b": 1, "a": 0},),  # whoever goes through it sees another order
        (),
    ]
    cache, measure = mi.Cache(tmp_path), new_function()
    for arguments in different:
        cache.keep(measure, *arguments)
    different_settings = [{"seed": 0}, {"seed": 1}, {"seed": 1, "images": train}, {"images": test}, {"other": test}]
    for settings in different_settings:
        cache.keep(measure, **settings)
    cache.keep(new_function(mi.data))
    number = len(different) + len(different_settings) + 1
    assert len(calls) == len(list(tmp_path.iterdir())) == number
    again = mi.ImageSet(train.images.clone(), train.labels.clone(), name="another name")
    cache.keep(measure, copy.deepcopy(model), again)
    cache.keep(measure, torch.stack([points, points], 1)[:, 0])  # the same numbers, otherwise in memory
    cache.keep(measure, images=again, seed=1)
    assert len(calls) == number


def test_another_machine_or_library_measures_anew(tmp_path, new_function, calls, monkeypatch):
    cache, measure = mi.Cache(tmp_path), new_function()
    cache.keep(measure, torch.ones(2))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    cache.keep(measure, torch.ones(2))
    monkeypatch.setattr(module, "LIBRARY", "another")
    cache.keep(measure, torch.ones(2))
    monkeypatch.setattr(module, "_version", lambda package: "0" if package == "scikit-learn" else "1")
    cache.keep(measure, torch.ones(2))
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, s: c.keep(lambda: 1), "function: got '<lambda>.<locals>.<lambda>', expected a function at the top"),
        (lambda c, s: c.keep(torch.nn.functional.relu, 1), "function: got 'relu', expected a function at the top of a"),
        (lambda c, s: c.keep(mi.ImageSet.balanced, s, 3), "function: got 'ImageSet.balanced', expected a function"),
        (lambda c, s: c.keep(mi.ImageSet, s.images), "function: got 'ImageSet', expected a function"),
        (lambda c, s: c.keep(partial(mi.accuracy, s)), "function: got 'partial', expected a function"),
        (lambda c, s: c.keep(None), "function: got 'NoneType', expected a function"),
        (lambda c, s: c.keep(mi.accuracy, torch.nn.Linear(1, 1)), "arguments[0]: got Linear, expected a plain value"),
        (lambda c, s: c.keep(mi.accuracy, images=print), "settings['images']: got builtin_function_or_method"),
        (
            lambda c, s: c.keep(mi.visibility, s, mi.craft("random", s)),
            "arguments[1]: got Perturbation, expected a plain value: a number, string, list, mapping or None; or an Im",
        ),
        (
            lambda c, s: c.keep(mi.accuracy, mi.Classifier(torch.nn.Flatten(), 144, 3, *torch.ones(2, 1)), s),
            "arguments[0]: got a Classifier of an unknown architecture, expected one made by build",
        ),
        (lambda c, s: c.keep(mi.features, mi.build("small_resnet", s), s), "value of features: got Tensor, expected a"),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path, tiny, call, message):
    with pytest.raises(ValueError) as error:
        call(mi.Cache(tmp_path), tiny)
    assert str(error.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_a_function_that_its_module_does_not_hold_is_refused(tmp_path, new_function):
    """As of one that is made inside another, its source is not all that it depends on."""
    before, _ = new_function(), new_function()
    with pytest.raises(ValueError, match="function: got 'measure', expected a function at the top of a module"):
        mi.Cache(tmp_path).keep(before)


@pytest.mark.parametrize("value", [math.nan, [1.0, {"a": -math.inf}]])
def test_a_value_that_is_not_finite_is_refused(tmp_path, new_function, value):
    with pytest.raises(ValueError, match="value of measure: got NaN or infinity in it, expected finite numbers"):
        mi.Cache(tmp_path).keep(new_function(), value=value)
    assert not list(tmp_path.iterdir())


def test_of_a_call_that_fails_nothing_is_kept(tmp_path):
    cache = mi.Cache(tmp_path / "new")
    with pytest.raises(ValueError, match="accuracy: got 2.0"):
        cache.keep(information_range, 2.0, torch.ones(2) / 2)
    assert not cache.folder.exists()


@pytest.mark.parametrize("damaged", [b'{"value": 0.125', b"", b"\xff", b"[1]", b'{"other": 1}'])
def test_a_reading_that_is_not_whole_is_made_again(tmp_path, new_function, calls, damaged):
    cache, measure = mi.Cache(tmp_path), new_function()
    cache.keep(measure, value=0.125)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damaged)
    assert cache.keep(measure, value=0.125) == 0.125
    assert len(calls) == 2
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]  # mended, and nothing beside


def test_readings_at_once(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cache, model, prior = mi.Cache(tmp_path), mi.build("small_resnet", tiny), torch.ones(4) / 4
    todo = [partial(cache.keep, information_range, accuracy, prior) for accuracy in (0.5, 0.75)]
    found = list(cache.at_once([*todo, partial(cache.keep, mi.accuracy, model, tiny)]))
    assert found[:2] == [list(information_range(accuracy, prior)) for accuracy in (0.5, 0.75)]
    assert found[2] == mi.accuracy(model, tiny)
    assert len(list(tmp_path.iterdir())) == 3
    assert [call() for call in todo] == found[:2]
    assert len(list(tmp_path.iterdir())) == 3


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

"""What is in a tree of pictures: every name is a picture with a target of its own, or is left out with a reason."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miue_lib.photos.tree import LeftOut, Photo, _targets, survey


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def targets(*sources: str, suffix: str = ".png") -> list[str]:
    return list(_targets(sorted(sources), suffix).values())


def reasons(root: Path) -> dict[str, str]:
    return {out.source: out.reason for out in survey(root).left_out}


def test_pictures_of_all_depths_belong_to_the_folder_on_top(tmp_path: Path) -> None:
    touch(tmp_path, "dogs/b.JPG", "cats/2020/may/a.webp", "cats/z.jpeg", "cats/Ä.png", "dogs/a.png")
    found = survey(tmp_path)
    assert found.root == tmp_path
    assert found.classes == ("cats", "dogs")
    assert found.photos == (
        Photo("cats/2020/may/a.webp", 0, "cats/2020/may/a.png"),
        Photo("cats/z.jpeg", 0, "cats/z.png"),
        Photo("cats/Ä.png", 0, "cats/Ä.png"),
        Photo("dogs/a.png", 1, "dogs/a.png"),
        Photo("dogs/b.JPG", 1, "dogs/b.png"),
    )
    assert found.left_out == ()
    assert [photo.target for photo in survey(tmp_path, ".webp").photos][-1] == "dogs/b.webp"


def test_everything_else_is_left_out_with_a_reason(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", "loose.jpg", "notes.txt", "a/clip.gif", "a/raw", "a/.hidden.png")
    touch(tmp_path, ".cache/1.png", "a/.thumbs/1.png", f"b/{'n' * 227}.png")
    (tmp_path / "empty" / "below").mkdir(parents=True)
    os.mkfifo(tmp_path / "b" / "pipe.png")
    ends = "its name does not end in .jpg, .jpeg, .png or .webp"
    assert reasons(tmp_path) == {
        ".cache": "hidden",
        "a/.hidden.png": "hidden",
        "a/.thumbs": "hidden",
        "a/clip.gif": ends,
        "a/raw": ends,
        f"b/{'n' * 227}.png": "a name of more than 230 bytes",
        "b/pipe.png": "neither a file nor a folder",
        "empty": "a folder without pictures",
        "loose.jpg": "in no class: the folders beside it are the classes",
        "notes.txt": ends,
    }


def test_links_to_files_are_pictures_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    root = touch(tmp_path / "photos", "a/1.png", "b/1.png")
    touch(tmp_path, "elsewhere/2.png")
    (root / "a" / "2.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    (root / "a" / "up").symlink_to(root)
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "3.png").symlink_to("nothing.png")
    (root / "b" / "self.png").symlink_to("self.png")
    (root / "self").symlink_to("self")
    found = survey(root)
    assert [photo.source for photo in found.photos] == ["a/1.png", "a/2.png", "b/1.png"]
    assert found.left_out == (
        LeftOut("a/3.png", "a link to nothing"),
        LeftOut("a/up", "a link to a folder: they are not followed"),
        LeftOut("b/self.png", "a link to nothing"),
        LeftOut("c", "a link to a folder: they are not followed"),
        LeftOut("self", "a link to nothing"),
    )


def test_names_that_are_no_text_are_left_out_and_can_be_written_down(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    try:
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/a/caf\xe9.png"))).touch()
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")).mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    left_out = reasons(tmp_path)
    assert set(left_out.values()) == {"a name that is not text (UTF-8)"}
    assert [source.encode("utf-8") for source in left_out] == [b"a/caf\\udce9.png", b"caf\\udce9"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="a superuser reads every folder")
def test_folders_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", "b/locked/2.png")
    (tmp_path / "b" / "locked").chmod(0)
    try:
        assert reasons(tmp_path) == {"b/locked": "a folder that cannot be read"}
    finally:
        (tmp_path / "b" / "locked").chmod(0o700)


def test_files_that_would_share_a_target_keep_their_suffix() -> None:
    assert targets("c/a.jpg", "c/a.png", "c/b.png") == ["c/a.jpg.png", "c/a.png.png", "c/b.png"]
    assert targets("c/a.jpg", "d/a.png") == ["c/a.png", "d/a.png"]
    assert targets("c/A.jpg", "c/a.png") == ["c/A.jpg.png", "c/a.png.png"]
    composed, apart = "c/é.jpg", unicodedata.normalize("NFD", "c/é.webp")
    assert targets(composed, apart) == [f"{apart}.png", f"{composed}.png"]
    # a.jpg's second choice is the first choice of another, which then gives way as well.
    assert targets("c/a.jpg", "c/a.jpg.jpg", "c/a.png") == ["c/a.jpg.png", "c/a.jpg.jpg.png", "c/a.png.png"]
    # Whole names that differ in case only.
    assert targets("c/A.jpg", "c/a.jpg", "c/a.png") == ["c/A.jpg.png", "c/a.jpg.2.png", "c/a.png.png"]
    # A folder's name is taken.
    assert targets("c/a.jpg", "c/a.png/b.png") == ["c/a.jpg.png", "c/a.png/b.png"]


NAMES = st.lists(st.sampled_from(["a", "A", "é", "e\u0301", "ß", "SS", ".jpg", ".png", ".2"]), min_size=1, max_size=4)


@given(
    st.sets(NAMES.map(lambda parts: "c/" + "".join(parts) + ".jpg"), max_size=12), st.sampled_from([".png", ".webp"])
)
def test_no_two_targets_are_one_on_any_file_system(sources: set[str], suffix: str) -> None:
    found = _targets(sorted(sources), suffix)
    assert set(found) == sources
    for fold in (str, str.casefold, str.lower, str.upper):
        for form in ("NFC", "NFD"):
            assert len({unicodedata.normalize(form, fold(target)) for target in found.values()}) == len(sources)
    assert all(target.endswith(suffix) and target.startswith("c/") for target in found.values())


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a.png"], "without sub-folders, expected a tree class/picture"),
        (["train/a/1.png", "test/a/1.png"], r"with the folders train and test, expected one of them .*photos/train"),
        (["a/1.png", "b/notes.txt"], r"with pictures in \['a'\], expected two or more classes with pictures: with one"),
        (["a/notes.txt"], "with pictures in no folder, expected two or more"),
    ],
)
def test_trees_that_cannot_be_protected_are_refused(tmp_path: Path, paths: list[str], expected: str) -> None:
    with pytest.raises(ValueError, match=f"photos: got .*photos' {expected}"):
        survey(touch(tmp_path / "photos", *paths))


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", touch(tmp_path, "file") / "file"):
        with pytest.raises(ValueError, match="photos: got .*, expected the path of a folder that exists"):
            survey(path)

"""The pipeline around the chapters: what is generated, how chapters are executed, what the setup cell does on Colab."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import torch

from book.tools import execute, project, render, sync
from book.tools.project import BOOK, REPOSITORY, ROOT, VERSION, BookError, chapters, colab_url

RELEASE = f"miue_lib @ {REPOSITORY}/archive/refs/tags/v{VERSION}.zip"


# What is generated


def test_every_generated_file_is_in_step(capsys: pytest.CaptureFixture[str]) -> None:
    sync.main(["--check"])
    assert "in step" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".py", ".ipynb"])
def test_a_differing_pair_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str) -> None:
    for path in (*BOOK.glob("*.*"), ROOT / "_config.yml", ROOT / "CITATION.cff", ROOT / "requirements.txt"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for module in (sync, project):
        monkeypatch.setattr(module, "ROOT", tmp_path)
        monkeypatch.setattr(module, "BOOK", tmp_path / "book")
    sync.main(["--check"])
    changed = tmp_path / "book" / f"{chapters()[0]}{suffix}"
    changed.write_text(changed.read_text(encoding="utf-8").replace("profile", "profil"), encoding="utf-8")
    with pytest.raises(BookError, match=rf"book/{chapters()[0]}\.ipynb"):
        sync.main(["--check"])
    sync.main([])
    sync.main(["--check"])


@pytest.mark.parametrize("name", chapters())
def test_a_notebook_is_clean_and_opens_where_the_setting_says(name: str) -> None:
    notebook = nbformat.read(BOOK / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert notebook.metadata.accelerator == "GPU"
    assert colab_url(name) in notebook.cells[1].source
    assert code[0].source == sync.setup_cell()
    assert RELEASE in code[0].source
    assert execute.parameters_of(notebook, name)["profile"] == "cpu"


def test_the_address_stands_in_one_setting() -> None:
    """Any other file that names an owner and a repository on GitHub or Colab names the same."""
    names = {address.removeprefix("https://github.com/") for address in [REPOSITORY]}
    for path in (ROOT / "_config.yml", ROOT / "CITATION.cff", *BOOK.glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"(?:https://github\.com|colab\.research\.google\.com/github)/([\w.-]+/[\w.-]+)", text)
        assert set(found) == names, path


def test_requirements_are_those_of_the_package() -> None:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    supported = {line for line in lines if not line.startswith("#")}
    assert supported == {*about["dependencies"], *about["optional-dependencies"]["book"]}
    locked = set(re.findall(r"(?m)^([\w-]+)==", (ROOT / "requirements.lock").read_text(encoding="utf-8")))
    wanted = supported.union(*about["optional-dependencies"].values())
    assert {sync.requirement_name(line).replace("_", "-") for line in wanted} <= locked


def test_a_source_gets_badge_and_setup_cell_after_its_title() -> None:
    title, rest = "# %% [markdown]\n# # A title\n", '# %% tags=["parameters"]\nseed = 0\n'
    synced = sync.synced_source(f"{title}\n{rest}", "chapter")
    notebook = nbformat.reads(sync.notebook(synced), as_version=4)
    assert [cell.metadata.get("tags") for cell in notebook.cells] == [
        None,
        ["badge"],
        ["setup", "hide-cell"],
        ["parameters"],
    ]
    assert sync.synced_source(synced, "chapter") == synced
    with pytest.raises(BookError, match="title"):
        sync.synced_source(rest, "chapter")


def test_cells_alike_get_ids_of_their_own() -> None:
    notebook = nbformat.reads(sync.notebook("# %%\n1\n\n# %%\n1\n"), as_version=4)
    assert len({cell.id for cell in notebook.cells}) == 2


def test_an_address_that_colab_cannot_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "REPOSITORY", "https://example.org/book")
    with pytest.raises(BookError, match=r"example\.org/book.*expected https://github\.com/OWNER/NAME"):
        colab_url("chapter")


# The setup cell


@pytest.fixture
def set_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the setup cell where these packages are installed; returns its pip commands and what it says."""

    def run(installed: dict[str, str], gpu: bool = True, torch_version: str = "2.14.1+cu130") -> tuple[list, str]:
        def version(package: str) -> str:
            if package not in installed:
                raise importlib.metadata.PackageNotFoundError(package)
            return installed[package]

        commands: list[list[str]] = []
        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command[1:]))
        monkeypatch.setattr(torch, "__version__", torch_version)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        exec(sync.setup_cell(), {})
        return commands, capsys.readouterr().out

    return run


COLAB = dict.fromkeys(
    ("torch", "torchvision", "numpy", "numba", "pillow", "matplotlib", "ipywidgets", "scikit-learn"), "1"
)
PIP = ["-m", "pip", "install", "--quiet"]


def test_setup_installs_the_release_alone_and_what_is_missing(set_up) -> None:
    commands, said = set_up(COLAB)
    assert commands == [[*PIP, "--no-deps", RELEASE], [*PIP, "safetensors>=0.8"]]
    assert said == ""


def test_setup_replaces_another_release(set_up) -> None:
    commands, _ = set_up(COLAB | {"safetensors": "1", "miue_lib": "0.0.1"})
    assert commands == [[*PIP, "--no-deps", RELEASE]]


def test_setup_does_nothing_where_all_is_there(set_up) -> None:
    assert set_up(COLAB | {"safetensors": "1", "miue_lib": VERSION}) == ([], "")


def test_setup_never_touches_torch_or_numpy(set_up) -> None:
    commands, _ = set_up({}, torch_version="2.9.1")
    assert commands
    assert not any(re.match("torch|numpy", word) for command in commands for word in command)


def test_setup_says_how_to_get_a_gpu_and_that_torch_is_old(set_up) -> None:
    _, said = set_up(COLAB, gpu=False, torch_version="2.9.1+cpu")
    assert "Runtime → Change runtime type → T4 GPU" in said
    assert "torch 2.9.1+cpu" in said


# Executing a chapter


@pytest.fixture
def chapter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Executes a small notebook of these cells, the first one tagged 'parameters', as `make execute` does a chapter."""
    library = tmp_path / "library"
    library.mkdir()
    (library / "code.py").write_text("1")
    monkeypatch.setattr(execute, "INPUTS", (library,))
    monkeypatch.setattr(execute, "RECORDS", tmp_path / "results")
    monkeypatch.setattr(execute, "BUILD", tmp_path)
    monkeypatch.setattr(execute, "RECORDED", ("torch",))
    source, folder = tmp_path / "small.ipynb", tmp_path / "executed"

    def run(*cells: str, tag: str = "parameters", **parameters: object) -> bool:
        texts = [f'# %% tags=["{tag}"]\n{cells[0]}', *(f"# %%\n{cell}" for cell in cells[1:])]
        source.write_text(sync.notebook("\n".join(texts)), encoding="utf-8")
        return execute.execute(source, folder, parameters)

    run.library, run.folder = library / "code.py", folder
    return run


def test_a_chapter_is_executed_once_until_something_changes(chapter) -> None:
    cells = ('profile = "cpu"\nseed = 0', "print(profile, seed)")
    assert chapter(*cells, seed=3)
    done = nbformat.read(chapter.folder / "small.ipynb", as_version=4)
    assert done.cells[-1].outputs[0].text == "cpu 3\n"
    assert done.metadata.book["parameters"] == {"profile": "cpu", "seed": 3}
    assert done.metadata.book["versions"]["torch"] == importlib.metadata.version("torch")
    assert not chapter(*cells, seed=3)
    chapter.library.write_text("2")
    assert chapter(*cells, seed=3)


def test_a_new_record_concerns_the_chapters_that_show_records(chapter, tmp_path: Path) -> None:
    without, shows = ("seed = 0", "print(seed)"), ("seed = 0", "results = None\nif results: results.recorded()")
    folder = tmp_path / "results"
    folder.mkdir()
    for cells, again in ((without, False), (shows, True)):
        assert chapter(*cells)
        (folder / f"{again}.json").write_text("{}")
        assert chapter(*cells) == again


def test_a_chapter_that_fails_keeps_only_a_failed_copy(chapter) -> None:
    with pytest.raises(BookError, match=r"(?s)small failed after.*small\.failed\.ipynb.*# why.*not so"):
        chapter("seed = 0", "# why\nassert seed == 1, 'not so'", "print('not reached')")
    assert [path.name for path in chapter.folder.iterdir()] == ["small.failed.ipynb"]


def test_a_chapter_that_ends_early_has_failed(chapter) -> None:
    with pytest.raises(BookError, match="small ended before its last cell"):
        chapter("seed = 0", "import sys; sys.exit(0)", "print('not reached')")
    assert [path.name for path in chapter.folder.iterdir()] == ["small.failed.ipynb"]


@pytest.mark.parametrize(
    ("first", "tag", "parameters", "message"),
    [
        ("seed = 0", "parameters", {"sead": 1}, "unknown parameter sead; expected one of seed"),
        ("seed = 0", "parameters", {"seed": "x"}, "seed='x'; expected something like 0"),
        ("seed = 0", "other", {}, "expected one cell tagged 'parameters', found 0"),
        ("n = 1\nseed = n + 1", "parameters", {}, "may hold only lines like seed = 0"),
        ("import os", "parameters", {}, "may hold only lines like seed = 0"),
    ],
)
def test_parameters_that_would_not_arrive_are_refused(chapter, first, tag, parameters, message) -> None:
    with pytest.raises(BookError, match=re.escape(message)):
        chapter(first, tag=tag, **parameters)


def test_unknown_chapters_and_profiles_are_refused() -> None:
    with pytest.raises(BookError, match="no chapter nowhere; expected some of"):
        execute.main(["nowhere"])


# Rendering


def test_rendering_needs_executed_chapters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(render, "STAGE", tmp_path)
    with pytest.raises(BookError, match="was not executed with profile none"):
        render.main(["--profile", "none"])


def test_a_picture_without_a_text_is_refused() -> None:
    picture = nbformat.v4.new_output("display_data", {"image/png": ""})
    cell = nbformat.v4.new_code_cell("figure", outputs=[picture])
    parameters = nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, cell])
    with pytest.raises(BookError, match=r"small: a cell shows .* expected one picture with an alt text: figure"):
        render.dress(notebook, "small")
    picture.metadata["image/png"] = {"alt": "What it shows"}
    render.dress(notebook, "small")
    assert cell.metadata.mystnb == {"image": {"alt": "What it shows"}}


def test_without_npm_the_same_scripts_come_from_a_cdn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(render, "STAGE", tmp_path)
    monkeypatch.setattr(render, "PACKAGES", tmp_path / "none")
    version = json.loads((ROOT / "package.json").read_text())["dependencies"]["mathjax"]
    assert render.scripts()["mathjax_path"] == f"https://cdn.jsdelivr.net/npm/mathjax@{version}/es5/tex-chtml.js"


def test_scripts_are_pinned_and_the_lock_names_no_host() -> None:
    wanted = json.loads((ROOT / "package.json").read_text())["dependencies"]
    lock = json.loads((ROOT / "package-lock.json").read_text())
    assert lock["packages"][""]["dependencies"] == wanted
    assert all(re.fullmatch(r"[\d.]+", version) for version in wanted.values())
    assert not any("resolved" in package for package in lock["packages"].values())


def test_lines_printed_one_by_one_are_one_block() -> None:
    def stream(text: str, name: str = "stdout") -> nbformat.NotebookNode:
        return nbformat.v4.new_output("stream", name=name, text=text)

    picture = nbformat.v4.new_output(
        "display_data", data={"image/png": ""}, metadata={"image/png": {"alt": "What it shows"}}
    )
    printed = [stream("a\n"), stream("b\n"), stream("!", "stderr"), picture, stream("c\n")]
    cell = nbformat.v4.new_code_cell("work()", outputs=printed)
    parameters = nbformat.v4.new_code_cell("seed = 0", metadata={"tags": ["parameters"]})
    render.dress(nbformat.v4.new_notebook(cells=[parameters, cell]), "small")
    assert [output.get("text") for output in cell.outputs] == ["a\nb\n", "!", None, "c\n"]

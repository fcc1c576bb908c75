"""The files around the code: they are valid, agree with each other, and name things that exist."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import cnnkit

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
GUIDES = ("CONTRIBUTING.md", "README.md")

sys.path.insert(0, str(ROOT / "docs"))

import build_site  # noqa: E402


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def setup():
    config = configparser.RawConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


@pytest.fixture(scope="module")
def targets():
    """The targets of the Makefile that are commands."""
    [line] = re.findall(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)
    return set(line.split())


def commands(name):
    """The code of a Markdown file: fenced blocks, and code within the text."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", read(name), re.MULTILINE | re.DOTALL)
    return [*blocks, *re.findall(r"`([^`\n]+)`", read(name))]


def entry_points(setup):
    return set(re.findall(r"^(\S+) =", setup["options.entry_points"]["console_scripts"], re.M))


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.citation-file-format", [ROOT / "CITATION.cff"]),
        ("vendor.github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", WORKFLOWS),
        ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
        (
            "vendor.github-issue-forms",
            [
                GITHUB / "ISSUE_TEMPLATE" / "bug_report.yml",
                GITHUB / "ISSUE_TEMPLATE" / "feature_request.yml",
            ],
        ),
        ("vendor.github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
    ],
)
def test_files_follow_their_schema(schema, files):
    command = [BIN / "check-jsonschema", "--builtin-schema", schema, *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_ask_for_few_rights(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "group" in workflow["concurrency"]
    rights = {
        name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job
    }
    assert rights == ({"publish": {"id-token": "write"}} if path.name == "release.yml" else {})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_name_a_version_of_each_action_and_targets_that_exist(path, targets):
    for job in load(path)["jobs"].values():
        for step in job.get("steps", ()):
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step["uses"])
            if step.get("run", "").startswith("make "):
                assert step["run"].split()[1] in targets
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file()


def test_workflows_test_every_supported_python(setup):
    versions = load(GITHUB / "workflows" / "tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    [bounds] = re.findall(r"\(3, (\d+)\) <= .* <= \(3, (\d+)\)", read("Makefile"))
    low, high = map(int, bounds)
    assert versions["python"] == [f"3.{minor}" for minor in range(low, high + 1)]
    assert setup["options"]["python_requires"] == f">=3.{low}"


def test_hooks_run_tools_that_are_installed(targets):
    [repository] = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert {"id", "name", "entry", "language"} <= hook.keys()
        assert hook["language"] == "system"
        program, *arguments = hook["entry"].split()
        if program == "make":
            assert targets.issuperset(arguments)
        else:
            assert program.startswith(".venv/bin/")
            assert (BIN / Path(program).name).is_file()


def test_hooks_run_what_make_lint_runs():
    [repository] = load(ROOT / ".pre-commit-config.yaml")["repos"]
    [recipe] = re.findall(r"^lint:.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)
    linted = [line.split()[0].removeprefix("$(BIN)/") for line in recipe.splitlines()]
    hooked = [hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repository["hooks"]]
    assert hooked == linted


def test_versions_agree(setup):
    version = setup["metadata"]["version"]
    if not version.startswith("attr:"):
        assert version == cnnkit.__version__
    assert load(ROOT / "CITATION.cff")["version"] == cnnkit.__version__


def test_the_changelog_describes_this_version():
    headings = re.findall(r"^## (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    pattern = r"\[Unreleased\]|\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d"
    assert all(re.fullmatch(pattern, heading) for heading in headings)
    versions = re.findall(r"\[(.+?)\]", " ".join(headings))
    assert versions[0] in ("Unreleased", cnnkit.__version__)
    assert len(versions) == len(set(versions))
    kinds = re.findall(r"^### (.*)$", read("CHANGELOG.md"), re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_citation_names_the_three_papers():
    references = load(ROOT / "CITATION.cff")["references"]
    years = {
        tuple(author["family-names"] for author in paper["authors"]): paper["year"]
        for paper in references
    }
    assert years == {
        ("Krizhevsky", "Sutskever", "Hinton"): 2012,
        ("Simonyan", "Zisserman"): 2015,
        ("Zeiler", "Fergus"): 2014,
    }


def test_contributing_fits_one_screen():
    assert len(read("CONTRIBUTING.md").splitlines()) < 60


@pytest.mark.parametrize("name", GUIDES)
def test_guides_name_targets_that_exist(name, targets):
    named = {
        target
        for command in commands(name)
        for target in re.findall(r"^make ([\w-]+)", command, re.MULTILINE)
    }
    assert named
    assert named <= targets


@pytest.mark.parametrize("name", GUIDES)
def test_guides_name_files_that_exist(name):
    """Paths that begin with a folder of the checkout, and files at its top."""
    folders = "benchmarks|cluster|cnnkit|docs|examples|notebooks|serving|tests"
    files = "Makefile|LICENSE|constraints.txt|setup.cfg|pyproject.toml"
    pattern = rf"(?<![\w/.-])((?:{folders})/[\w./-]*|{files}|[A-Z]+\.(?:md|cff))(?![\w/])"
    paths = {path for command in commands(name) for path in re.findall(pattern, command)}
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_contributing_names_packages_that_exist():
    rows = re.findall(r"^\| (`.*?) \|", read("CONTRIBUTING.md"), re.MULTILINE)
    packages = {package for row in rows for package in re.findall(r"`(\w+)`", row)}
    assert len(packages) > 10
    for package in packages:
        place = ROOT / "cnnkit" / package
        assert place.is_dir() or place.with_suffix(".py").is_file(), package


@pytest.mark.parametrize("name", GUIDES)
def test_guides_name_programs_that_exist(name, setup):
    named = {
        program
        for command in commands(name)
        for program in re.findall(r"^(?:\.venv/bin/)?(cnnkit[\w-]*) ", command, re.MULTILINE)
    }
    assert named <= entry_points(setup)


def test_relative_links_point_to_files_and_headings():
    assert build_site.broken_links() == []


def test_broken_links_are_found(tmp_path):
    text = "# One `two`\n\n[a](#one-two) [b](page.md#one-two) [c](#three)\n\n![d](e.png)\n"
    (tmp_path / "page.md").write_text(text)
    assert build_site.broken_links(tmp_path) == ["page.md:3: #three", "page.md:5: e.png"]


def test_every_target_of_make_is_a_rule(targets):
    rules = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    assert rules == targets

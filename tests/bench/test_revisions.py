import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from overconv.bench import revisions
from overconv.bench.host import ended_by_signals
from overconv.bench.revisions import changed, checkout, commit, refuse_changes
from overconv.bench.workers import CannotJudge


def test_a_base_lies_in_a_folder_of_its_own_and_goes_again(repository):
    repository.replace("tiny/layer.py", "range(1)", "range(2)")
    repository.commit("slower")
    with checkout(repository.root, commit(repository.root, "base")) as tree:
        assert "range(1)" in (tree / "tiny/layer.py").read_text()
        assert "range(2)" in (repository.root / "tiny/layer.py").read_text()
        assert not tree.is_relative_to(repository.root)
    assert not tree.parent.exists()
    assert len(repository.git("worktree", "list").splitlines()) == 1


def test_it_goes_when_something_fails_too(repository):
    with pytest.raises(ZeroDivisionError), checkout(repository.root, "base") as tree:
        raise ZeroDivisionError
    assert not tree.parent.exists()
    assert len(repository.git("worktree", "list").splitlines()) == 1


def test_a_name_is_resolved_to_its_commit(repository):
    full = repository.git("rev-parse", "HEAD").strip()
    assert commit(repository.root, "base") == commit(repository.root, full[:9]) == full


def test_an_unknown_revision_is_named(repository):
    with pytest.raises(CannotJudge, match="unknown base revision 'nowhere': git finds no such"):
        commit(repository.root, "nowhere")
    blob = repository.git("rev-parse", "HEAD:cases.py").strip()
    with pytest.raises(CannotJudge, match="unknown base revision"):
        commit(repository.root, blob)


@pytest.mark.parametrize("name", ["", "--all"])
def test_what_is_no_name_of_a_revision_is_refused(repository, name):
    with pytest.raises(ValueError, match=r"base=.* is no name of a revision"):
        commit(repository.root, name)


def test_a_shallow_clone_says_how_it_is_mended(repository, tmp_path):
    repository.commit("second")
    url = repository.root.as_uri()
    subprocess.run(["git", "clone", "-q", "--depth=1", url, tmp_path / "shallow"], check=True)
    with pytest.raises(CannotJudge) as caught:
        commit(tmp_path / "shallow", "HEAD~1")
    assert str(caught.value) == (
        "base revision 'HEAD~1' is not here, since this clone is shallow: fetch all of it with"
        " `git fetch --unshallow`; in a GitHub workflow give actions/checkout the line"
        " `fetch-depth: 0`"
    )
    assert commit(tmp_path / "shallow", "HEAD") == repository.git("rev-parse", "HEAD").strip()


def test_no_repository_and_no_git_are_said(tmp_path, monkeypatch):
    with pytest.raises(CannotJudge, match="lies in no git repository"):
        revisions.repository(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotJudge, match="needs git, which is not installed"):
        revisions.repository(tmp_path)


def test_changes_that_are_not_committed_are_refused(repository):
    refuse_changes(repository.root)
    repository.write("notes of a run.json", "{}")  # is no code
    refuse_changes(repository.root)
    repository.replace("tiny/layer.py", "range(1)", "range(2)")
    repository.write("tiny/more/new.py", "")
    assert changed(repository.root) == ["tiny/layer.py", "tiny/more/new.py"]
    with pytest.raises(CannotJudge) as caught:
        refuse_changes(repository.root)
    assert str(caught.value) == (
        "the working tree has changes that are not committed (tiny/layer.py, tiny/more/new.py), so"
        " that a verdict would be about no revision: commit or stash them, or judge the tree as it"
        " lies with --allow-dirty"
    )
    repository.git("add", "-A")
    with pytest.raises(CannotJudge, match="and 1 more"):
        repository.write("a.py", "")
        refuse_changes(repository.root)


def test_hooks_of_the_repository_do_not_run(repository):
    hook = repository.write(".git/hooks/post-checkout", "#!/bin/sh\ntouch hook-ran\nexit 1\n")
    hook.chmod(0o755)
    with checkout(repository.root, "base") as tree:
        assert not (tree / "hook-ran").exists()


def test_a_hook_that_runs_the_gate_does_not_mislead_it(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert revisions.repository(repository.root / "tiny") == repository.root


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_leaves_no_worktree_behind(repository, name):
    code = f"""
        import sys, time
        from pathlib import Path
        from overconv.bench.host import ended_by_signals
        from overconv.bench.revisions import checkout
        with ended_by_signals(), checkout(Path({str(repository.root)!r}), "base") as tree:
            print(tree, flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    )
    tree = process.stdout.readline().strip()
    assert Path(tree).exists()
    process.send_signal(getattr(signal, name))
    process.communicate(timeout=30)
    assert process.returncode == 128 + getattr(signal, name)
    assert not Path(tree).exists()
    assert len(repository.git("worktree", "list").splitlines()) == 1


def test_handlers_of_signals_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with ended_by_signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_repository_of_another_user_is_no_missing_one(repository, monkeypatch):
    """As git finds it in a container into which a checkout is mounted."""
    real = revisions._git

    def git(folder, *arguments):
        if "--show-toplevel" not in arguments:
            return real(folder, *arguments)
        stderr = (
            "fatal: detected dubious ownership in repository at '/here'\nTo add an exception for"
            " this directory, call:\n\n\tgit config --global --add safe.directory /here\n"
        )
        return subprocess.CompletedProcess(arguments, 128, "", stderr)

    monkeypatch.setattr(revisions, "_git", git)
    with pytest.raises(CannotJudge) as caught:
        revisions.repository(repository.root)
    assert str(caught.value) == (
        f"git refuses the repository of {repository.root}, since another user owns it; allow it"
        " with `git config --global --add safe.directory /here`"
    )


def test_files_that_are_in_no_commit_are_told_ignored_ones_too(repository):
    for name in ("a.json", "b [1].json", "sub/c.json"):
        repository.write(name, "")
    repository.write(".gitignore", "a.json")
    files = [repository.root / name for name in ("a.json", "b [1].json", "sub/c.json", "cases.py")]
    found = revisions.untracked(repository.root, files)
    assert found == ["a.json", "b [1].json", "sub/c.json"]
    repository.commit("all but the ignored one")
    assert revisions.untracked(repository.root, files) == ["a.json"]


def test_what_differs_from_a_revision(repository):
    repository.replace("tiny/layer.py", "range(1)", "range(2)")
    repository.commit("slower")
    repository.write("cases.py", "")  # not committed
    paths = [repository.root / "tiny", repository.root / "cases.py", repository.root / "setup.py"]
    assert revisions.differing(repository.root, "base", paths) == ["cases.py", "tiny/layer.py"]
    assert revisions.differing(repository.root, "HEAD", paths[:1]) == []
    text = revisions.file_at(repository.root, "base", repository.root / "tiny/layer.py")
    assert "range(1)" in text
    assert revisions.file_at(repository.root, "base", repository.root / "tiny/no.py") is None

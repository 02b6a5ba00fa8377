"""A base revision in a folder of its own, and the sentences for when there is none."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from overconv.bench.workers import CannotJudge

_LISTED = 3  # changed files that are named


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # In a hook git sets variables that would lead it back to the repository of the hook.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", *arguments],
            cwd=folder,
            env=environment | {"LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise CannotJudge("a base revision needs git, which is not installed here") from None


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"git ended with status {done.returncode}"


def repository(folder: Path) -> Path:
    """The root of the git repository that a folder lies in.

    Raises:
        CannotJudge: It lies in none.
    """
    done = _git(folder, "rev-parse", "--show-toplevel")
    if "dubious ownership" in done.stderr:  # common in containers
        raise CannotJudge(
            f"git refuses the repository of {folder}, since another user owns it; allow it with"
            f" `{_said(done)}`"
        )
    if done.returncode:
        raise CannotJudge(
            f"there is no base revision to compare with: {folder} lies in no git repository"
            f" ({_said(done)})"
        )
    return Path(done.stdout.rstrip("\n")).resolve()


def commit(root: Path, revision: str) -> str:
    """The full hash of a revision's commit.

    Raises:
        ValueError: The name begins with a dash or is empty.
        CannotJudge: There is no such commit here.
    """
    if not revision or revision.startswith("-"):
        raise ValueError(f"base={revision!r} is no name of a revision")
    done = _git(root, "rev-parse", "--verify", "--quiet", revision + "^{commit}")
    if not done.returncode:
        return done.stdout.strip()
    if _git(root, "rev-parse", "--is-shallow-repository").stdout.strip() == "true":
        raise CannotJudge(
            f"base revision {revision!r} is not here, since this clone is shallow: fetch all of it"
            " with `git fetch --unshallow`; in a GitHub workflow give actions/checkout the line"
            " `fetch-depth: 0`"
        )
    raise CannotJudge(
        f"unknown base revision {revision!r}: git finds no such commit in {root}; a branch of"
        " the server may have to be fetched first"
    )


def described(root: Path) -> str:
    """What is checked out, as a short hash; ``"no commit"`` where there is none yet."""
    return _git(root, "rev-parse", "--short=12", "HEAD").stdout.strip() or "no commit"


def contains(root: Path, revision: str) -> bool:
    """Whether what is checked out has a revision in its history, as far as this clone knows it."""
    return not _git(root, "merge-base", "--is-ancestor", revision, "HEAD").returncode


def changed(root: Path) -> list[str]:
    """Files that differ from the commit, and Python files that git does not know.

    Untracked files of other kinds are not code, and a run of the gate may leave some.
    """
    done = _git(root, "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames")
    if done.returncode:
        raise CannotJudge(f"git cannot tell what has changed: {_said(done)}")
    entries = [entry for entry in done.stdout.split("\0") if entry]
    return [e[3:] for e in entries if not e.startswith("??") or e.endswith((".py", ".pyi"))]


def untracked(root: Path, files: Sequence[Path]) -> list[str]:
    """Of these files, those that are in no commit to be, ignored ones included."""
    known = _names(root, "ls-files", files)
    names = [path.relative_to(root).as_posix() for path in files]
    return [name for name in names if name not in known]


def differing(root: Path, revision: str, paths: Sequence[Path]) -> list[str]:
    """Files among these, or in these folders, that are not what a revision has."""
    return _names(root, "diff", paths, "--name-only", "--no-renames", revision)


def _names(root: Path, what: str, paths: Sequence[Path], *options: str) -> list[str]:
    done = _git(root, "--literal-pathspecs", what, "-z", *options, "--", *map(str, paths))
    if done.returncode:
        raise CannotJudge(f"git cannot tell what has changed: {_said(done)}")
    return [name for name in done.stdout.split("\0") if name]


def file_at(root: Path, revision: str, path: Path) -> str | None:
    """The text of a file in a revision; None where it has no such file."""
    name = path.relative_to(root).as_posix()
    done = _git(root, "cat-file", "blob", f"{revision}:{name}")
    return None if done.returncode else done.stdout


def refuse_changes(root: Path, head: str | None = None) -> None:
    """The head that is judged has to be the commit that is merged.

    Args:
        head: What was checked out before, as :func:`described` said it.

    Raises:
        CannotJudge: Something is changed and not committed, or another commit is checked out.
    """
    if head is not None and head != (now := described(root)):
        raise CannotJudge(
            f"another commit was checked out while this ran ({head} before, {now} now), so that a"
            " verdict would be about neither: run it again, and leave the tree alone meanwhile"
        )
    files = changed(root)
    if files:
        more = f" and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
        raise CannotJudge(
            f"the working tree has changes that are not committed ({', '.join(files[:_LISTED])}"
            f"{more}), so that a verdict would be about no revision: commit or stash them, or"
            " judge the tree as it lies with --allow-dirty"
        )


@contextmanager
def checkout(root: Path, revision: str) -> Iterator[Path]:
    """The files of a commit in a temporary folder, a worktree that is removed in any case.

    Raises:
        CannotJudge: git cannot make one.
    """
    above = Path(tempfile.mkdtemp(prefix="gate-base-")).resolve()
    tree = above / "tree"
    try:
        done = _git(root, "worktree", "add", "--detach", "--quiet", str(tree), revision)
        if done.returncode:
            raise CannotJudge(f"git cannot check out base revision {revision}: {_said(done)}")
        yield tree
    finally:
        _git(root, "worktree", "remove", "--force", "--force", str(tree))
        shutil.rmtree(above, ignore_errors=True)

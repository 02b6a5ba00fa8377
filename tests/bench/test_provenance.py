import pytest

from overconv.bench import provenance


@pytest.fixture
def tree(tmp_path):
    for name in (
        "tree/pkg/__init__.py",
        "tree/python/deep/__init__.py",
        "tree/flat.py",
        "other/x.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "tree"


@pytest.mark.parametrize(
    ("name", "file", "wrong"),
    [
        ("pkg.layer", "tree/pkg/layer.py", False),
        ("pkg.layer", "elsewhere/pkg/layer.py", True),
        ("pkg", "lib/python3/site-packages/pkg/__init__.py", True),
        ("deep", "lib/python3/site-packages/deep/__init__.py", True),
        ("flat", "elsewhere/flat.py", True),
        ("numpy", "lib/python3/site-packages/numpy/__init__.py", False),
        ("anything", "other/x.py", True),  # from the other revision
        ("numpy", "other/.venv/lib/site-packages/numpy/__init__.py", False),
        ("json", "lib/python3/json/__init__.py", False),
    ],
)
def test_code_must_come_from_the_tree_that_has_it(tree, name, file, wrong):
    above = tree.parent
    files = [(name, str(above / file))]
    found = provenance.foreign_modules(files, tree, [tree], above / "other")
    assert found == ([f"{name} from {above / file}"] if wrong else [])


def test_the_project_of_a_file_and_where_it_imports_from(tmp_path):
    path = tmp_path / "repo" / "ml" / "bench" / "cases.py"
    path.parent.mkdir(parents=True)
    (tmp_path / "repo" / ".git").mkdir()
    assert provenance.project_root(path) == tmp_path / "repo"
    (tmp_path / "repo" / "ml" / "pyproject.toml").touch()
    root = provenance.project_root(path)
    assert root == tmp_path / "repo" / "ml" and provenance.import_roots(root) == [root]
    (root / "src").mkdir()
    assert provenance.import_roots(root) == [root, root / "src"]

"""Files and folders appear complete or not at all, and a lock is held by one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import PretrainError
from common.files import (
    atomic_file,
    changed_files,
    hash_file,
    lock_holder,
    locked,
    new_hash,
    publish_folder,
    read_manifest,
    replacing,
    sha256,
)


def test_a_file_is_replaced_only_by_a_finished_one(tmp_path: Path) -> None:
    path = tmp_path / "deep/file"
    with atomic_file(path) as file:
        file.write(b"old")
        assert not path.exists()
    with pytest.raises(TypeError), atomic_file(path) as file:
        file.write("new")  # text is refused
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_replaced_only_by_a_finished_one(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for text in ("old", "new"):
        with replacing(path) as building:
            (building / "deep").mkdir(parents=True)
            (building / "deep" / text).write_text(text)
    with pytest.raises(FileNotFoundError), replacing(path) as building:
        (building / "missing/file").write_text("new")
    assert list(tmp_path.iterdir()) == [path]
    assert [file.name for file in (path / "deep").iterdir()] == ["new"]


def test_a_manifest_tells_what_changed(tmp_path: Path) -> None:
    for text in ("first", "second"):
        building = tmp_path / ".building"
        building.mkdir()
        (building / "a").write_text(text)
        (building / ".hidden").write_text(text)
        publish_folder(building, tmp_path / "published", {"text": text})
    manifest = read_manifest(tmp_path / "published")
    assert manifest is not None
    assert manifest["text"] == "second"
    assert list(manifest["files"]) == ["a"]
    assert changed_files(tmp_path / "published", manifest) == []
    (tmp_path / "published/a").write_text("Second")
    assert changed_files(tmp_path / "published", manifest) == ["a"]
    assert read_manifest(tmp_path) is None


def test_hashes_by_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a").startswith("ba7816bf")
    assert hash_file(tmp_path / "a", "md5") == "900150983cd24fb0d6963f7d28e17f72"
    assert len(hash_file(tmp_path / "a")) == 32
    with pytest.raises(ValueError, match="nosuch"):
        new_hash("nosuch")


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    assert lock_holder(tmp_path) is None
    program = "import sys; from pathlib import Path; from common.files import locked\n"
    program += "with locked(Path(sys.argv[1]), 'wait'): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert f"pid {other.pid}" in str(lock_holder(tmp_path))
        with pytest.raises(PretrainError, match=f"pid {other.pid} .*or name another"), locked(tmp_path, "name another"):
            pass
        other.kill()
    with locked(tmp_path, "name another"):
        pass

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sarflood.errors import InputError
from sarflood.operations.inbox import MOST_ATTEMPTS, Inbox, check_drop, event_id

QUIET_S = 0.5


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    inbox = Inbox(tmp_path / "inbox", tmp_path / "memory")
    inbox.make()
    return inbox


def wait_until_ready(inbox: Inbox) -> list[Path]:
    deadline = time.monotonic() + 20
    while not (found := inbox.ready(QUIET_S)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_a_drop_that_still_changes_is_not_ready_and_later_is(inbox: Inbox) -> None:
    drop = inbox.folder / "typhoon"
    drop.mkdir()
    (drop / "scene.tif").write_bytes(b"half")
    assert inbox.ready(QUIET_S) == []
    assert wait_until_ready(inbox) == [drop]


def test_a_folder_renamed_into_the_inbox_is_ready_at_once(inbox: Inbox, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "scene.tif").write_bytes(b"whole")
    deadline = time.monotonic() + QUIET_S + 0.1
    while time.monotonic() < deadline:
        time.sleep(0.05)
    made.rename(inbox.folder / "typhoon")
    assert inbox.ready(QUIET_S) == [inbox.folder / "typhoon"]


def test_what_another_process_still_writes_is_not_ready(inbox: Inbox) -> None:
    drop = inbox.folder / "typhoon"
    drop.mkdir()
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"f = open({str(drop / 'scene.tif')!r}, 'w'); print(flush=True); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdin
    assert writer.stdout
    writer.stdout.readline()
    deadline = time.monotonic() + 2 * QUIET_S
    while time.monotonic() < deadline:
        assert inbox.ready(QUIET_S) == []
        time.sleep(0.05)
    writer.communicate(b"\n")
    assert wait_until_ready(inbox) == [drop]


@pytest.mark.parametrize("name", ["scene.tif.part", "scene.filepart", ".scene.tif.Xy12Ab"])
def test_a_copying_programs_unfinished_file_keeps_a_drop_waiting(inbox: Inbox, name: str) -> None:
    drop = inbox.folder / "typhoon"
    drop.mkdir()
    (drop / name).write_bytes(b"half")
    (drop / ".DS_Store").write_bytes(b"of a Mac, and whole")
    deadline = time.monotonic() + 2 * QUIET_S
    while time.monotonic() < deadline:
        assert inbox.ready(QUIET_S) == []
        time.sleep(0.05)
    (drop / name).rename(drop / "scene.tif")
    assert wait_until_ready(inbox) == [drop]


def test_drops_come_in_the_order_in_which_they_were_made(inbox: Inbox) -> None:
    for age, name in enumerate(("third", "second", "first")):
        (inbox.folder / name).mkdir()
        os.utime(inbox.folder / name, (1_000_000 - age, 1_000_000 - age))
    assert [drop.name for drop in inbox.drops()] == ["first", "second", "third"]


def test_the_inboxs_own_folders_and_hidden_files_are_no_drops(inbox: Inbox) -> None:
    (inbox.folder / ".DS_Store").write_bytes(b"")
    assert inbox.drops() == []


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("Ulysses 2020.zip", "ulysses-2020"),
        ("ulysses_2020.tar.gz", "ulysses-2020"),
        ("S1A_IW.tif", "s1a-iw"),
        ("../../etc", "etc"),
        ("a" * 200, "a" * 63),
        ("x" * 62 + "--y", "x" * 62),
    ],
)
def test_an_event_is_called_after_its_drop(name: str, event: str) -> None:
    assert event_id(name) == event


def test_a_name_without_a_letter_is_refused() -> None:
    with pytest.raises(InputError, match="no event can be called this"):
        event_id("台风")


def test_links_and_pipes_are_refused(inbox: Inbox) -> None:
    drop = inbox.folder / "typhoon"
    drop.mkdir()
    (drop / "scene.tif").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match=r"typhoon/scene\.tif: a link"):
        check_drop(drop)
    shutil.rmtree(drop)
    drop.symlink_to("/etc")
    with pytest.raises(InputError, match="typhoon: a link"):
        check_drop(drop)
    drop.unlink()
    os.mkfifo(drop)
    with pytest.raises(InputError, match="neither a file nor a folder"):
        check_drop(drop)


def test_finished_drops_are_kept_each_under_a_name_of_its_own(inbox: Inbox) -> None:
    for content in ("one", "two"):
        (inbox.folder / "typhoon.zip").write_text(content)
        inbox.finish(inbox.folder / "typhoon.zip")
    (inbox.folder / "typhoon.zip").write_text("three")
    inbox.finish(inbox.folder / "typhoon.zip", "no radar image in it")
    done, refused = inbox.folder / "done", inbox.folder / "refused"
    assert [(done / name).read_text() for name in ("typhoon.zip", "typhoon.zip.2")] == [
        "one",
        "two",
    ]
    assert (refused / "typhoon.zip").read_text() == "three"
    assert (refused / "typhoon.zip.reason.txt").read_text() == "no radar image in it\n"
    assert inbox.drops() == []


def test_a_drop_that_kills_its_reader_again_and_again_is_refused(inbox: Inbox) -> None:
    drop = inbox.folder / "typhoon"
    drop.mkdir()
    for _ in range(MOST_ATTEMPTS):
        inbox.attempt(drop)
    with pytest.raises(InputError, match=f"killed the reader {MOST_ATTEMPTS} times"):
        inbox.attempt(drop)
    inbox.forgive(drop)
    inbox.attempt(drop)


def test_who_waits_sees_all_drops_that_are_taken_in(inbox: Inbox) -> None:
    assert inbox.wait(0), "nothing is taken in"
    with inbox.taking_in():
        assert not inbox.wait(0.1)
    assert inbox.wait(0)

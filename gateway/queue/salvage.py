"""Opening, and what is done when a database is damaged: set aside, saved from what has a good checksum, go on.

A damaged database is moved to a folder of quarantine/ under the note `moving`, which becomes `unfinished` once all of
it is there; only when the new database holds what could be saved is the note removed. A crash in between starts the
salvage again, so it may commit by parts: it needs the room of what is saved once more, not twice. Older quarantines make that room, and what is kept in
reserve; where that is not enough nothing is written until there is more.
"""

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw

from gateway.codec import Shape
from gateway.errors import QueueFull, StorageError, StorageFailing, StorageUnwritable
from gateway.queue.damaged import NO_DAMAGE, Damaged
from gateway.queue.ledger import of_queue
from gateway.queue.lock import Note
from gateway.queue.log import HEADER_BYTES, has_header
from gateway.queue.origin import Origin, Salvaged
from gateway.queue.permission import not_permitted
from gateway.queue.quarantine import UNFINISHED, Quarantine, damage, size
from gateway.queue.salvaged import by_queue, carried
from gateway.queue.schema import IN_WAL_MODE, LANES, SUFFIXES, sync_directory, unusable
from gateway.queue.settings import QueueSettings
from gateway.queue.state import StorageDamaged
from gateway.queue.store import Store, free_bytes, log_bytes_max, reserve_path
from gateway.queue.story import UNREAD, Holes, SavedLane, Story


def open_store(
    path: Path,
    settings: QueueSettings,
    ledger: Shape,
    noted: Note | None,
    now: tuple[int, int],
    vfs: str | None,
) -> Store:
    """A store that is ready for use; `noted` is what the last process left in the lock. Raises StorageError, StorageFailing."""
    with _translated(path):
        quarantine = Quarantine(path)
        unfinished = quarantine.unfinished()
        if unfinished is not None:
            quarantine.discard()
        else:
            try:
                return _open(path, settings, ledger, noted, vfs)
            except StorageDamaged as error:
                unfinished = quarantine.set_aside(str(error))
            except OSError as error:  # of what is read here and not by SQLite
                if error.errno != errno.EIO:
                    raise
                unfinished = quarantine.set_aside(f"the queue's files can't be read: {error.strerror}")
        store = _salvage(path, unfinished, settings, ledger, noted, now, vfs)
        quarantine.shrink(settings.max_bytes)
        return store


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except QueueFull as error:
        raise StorageUnwritable(f"{path}: {error}") from error
    except OSError as error:
        raise unusable(path, error) from error
    except (StorageFailing, *NO_DAMAGE) as error:
        reason = _closed(path)
        if reason is not None:
            raise StorageError(reason) from error
        if isinstance(error, StorageFailing):
            raise
        raise StorageFailing(f"the queue's disk failed: {error}") from error


def _closed(database: Path) -> str | None:
    """Why one of its files may not be used, if so. SQLite's errors name no file, and some speak of the disk."""
    for suffix in SUFFIXES:
        file = Path(f"{database}{suffix}")
        try:
            os.close(os.open(file, os.O_RDWR | os.O_CLOEXEC))
        except PermissionError:
            return not_permitted(file)
        except OSError:
            continue
    return None


def _open(path: Path, settings: QueueSettings, ledger: Shape, noted: Note | None, vfs: str | None) -> Store:
    log = Path(f"{path}-wal")
    log_bytes = log.stat().st_size if log.exists() else 0
    found = Quarantine(path).suspected() or _missing(path, log, log_bytes, noted)
    if found is not None:
        raise StorageDamaged(found)
    try:
        store = Store(path, settings, ledger, vfs)
    except StorageFailing as error:
        raise _damaged_schema(error) from error
    try:
        if store.empty():
            if noted is not None:
                raise StorageDamaged("the queue's database has no tables")
            store.create(secrets.token_hex(8))
            sync_directory(path.parent)
        else:
            store.check(whole=log_bytes > 0)  # an unclean stop
    except StorageFailing as error:
        store.abandon()
        raise _damaged_schema(error) from error
    except BaseException:
        store.abandon()
        raise
    return store


def _missing(path: Path, log: Path, log_bytes: int, noted: Note | None) -> str | None:
    # A first start that was interrupted may leave a log with nothing in it.
    if (log_bytes > HEADER_BYTES or noted is not None) and not path.exists():
        return "the queue's database file is missing"
    if noted is None:
        return None
    with path.open("rb") as file:
        if file.read(20)[18:] != IN_WAL_MODE:
            return "the queue's database file has lost its header"
    if noted.is_open and not has_header(log):
        return "the queue's log is missing, and with it the newest records"
    return None


def _damaged_schema(error: StorageFailing) -> StorageFailing:
    """Statements that ran when the database was made are wrong now."""
    return StorageDamaged(str(error)) if isinstance(error.__cause__, apsw.SQLError) else error


def _salvage(
    path: Path,
    quarantine: Path,
    settings: QueueSettings,
    ledger: Shape,
    noted: Note | None,
    now: tuple[int, int],
    vfs: str | None,
) -> Store:
    note = quarantine / UNFINISHED
    with closing(Damaged(quarantine / path.name, noted.queue_id if noted else None, vfs)) as damaged:
        _make_room(path, damaged, quarantine, settings)
        store = Store(path, settings, ledger, vfs)
        try:
            store.make_room(size(quarantine))
            store.create(secrets.token_hex(8))
            known = damaged.meta | {"unmapped": json.dumps(list(damaged.unmapped))}
            store.take_over(known, damaged.rows("mark"))
            letters, dropped = damaged.letters(), damaged.dropped()
            pieces, told = {}, {}
            for lane in LANES:
                pieces[lane], told[lane] = _save(store, damaged, lane, now)
            formers = damaged.formers(pieces)
            unread = tuple(sorted(damaged.broken & UNREAD.keys()))
            story = Story(now[0], damage(note), damaged.queue_id, str(quarantine), unread, **told)
            store.finish_salvage(story, pieces, letters, dropped, formers, now)
            sync_directory(path.parent)
        except BaseException:
            store.abandon()
            Quarantine(path).discard()
            raise
    note.unlink()
    sync_directory(quarantine)
    return store


def _make_room(path: Path, damaged: Damaged, quarantine: Path, settings: QueueSettings) -> None:
    """To try in vain would cost the card as much each time as to succeed. Raises StorageUnwritable."""
    log_bytes = log_bytes_max(settings)
    needed = log_bytes + min(damaged.undelivered_bytes(), size(quarantine))
    while free_bytes(path.parent) < needed and Quarantine(path).forget_oldest():
        pass
    if free_bytes(path.parent) < needed:
        reserve_path(path).unlink(missing_ok=True)
    free = free_bytes(path.parent)
    if free < needed:
        damaged.leave_the_oldest(free - log_bytes)
        needed = log_bytes + min(damaged.undelivered_bytes(), size(quarantine))
    if free < needed:
        raise StorageUnwritable(
            f"{quarantine}: {needed} bytes are needed to save what is in the damaged database, {free} are free"
        )


def _save(
    store: Store, damaged: Damaged, lane: str, now: tuple[int, int]
) -> tuple[list[Salvaged], SavedLane]:
    state = damaged.lanes.get(lane)
    holes = Holes(0 if state is None else state.position, now[0])
    segments = damaged.segments(lane, holes)
    if lane == "ledger":
        segments = (
            (first, [of_queue(entry, damaged.queue_id) for entry in entries]) for first, entries in segments
        )
    pieces = store.save(lane, damaged.queue_id, segments, now)
    if state is not None:
        holes.end(state.next_seq - 1)
    told = SavedLane(
        records=sum(piece.records for piece in pieces),
        first=pieces[0].old_first if pieces else None,
        last=pieces[-1].old_last if pieces else None,
        position=None if state is None else state.position,
        lost=tuple(holes.lost),
        lost_records=holes.records,
        end=holes.last,
        end_ms=holes.last_ms,
    )
    origin = Origin.known(damaged.meta, damaged.queue_id)
    parted = [] if origin is None else [origin.shared(lane)]
    earlier = by_queue(parted + damaged.salvaged[lane])
    return pieces + [one for before in earlier.values() for one in carried(pieces, before)], told

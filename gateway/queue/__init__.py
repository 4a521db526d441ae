"""The store-and-forward queue: one SQLite file that holds what devices were told is accepted until Kafka has it.

Assumptions. The disk keeps what it says it flushed (a card that lies loses what it lied about); one process has the
file open, by a lock, through one connection on one thread; fsync errors are final for the process.

Format. A row is a segment: the records of one lane that one commit wrote, packed, compressed and checksummed
(gateway.codec), so that the cost of a commit is shared by all who waited for it. Sequence numbers start at 1 in each
lane and are given inside the commit; lane.next_seq is written in the transaction that deletes segments, and what
lies behind it is counted from the segments, so a number is never given twice. `position` says: all up to here is
delivered, dead-lettered or dropped. WAL with synchronous=FULL: what a commit returned survives a power cut.

Commits. Whoever waits shares a group: it is committed at once if the last commit is older than commit_interval, else
at the interval's end. Records that nobody waits for ride along, or are committed after unacked_interval. A group that
finds the disk full fails, and with it what came meanwhile: sent again, it would lie behind that. A delivered position
is confirmed with a later commit, at most 5 s after; losing it is harmless, Kafka knows it better.

Space. used = live pages + write-ahead log. At the cap devices are refused, or the oldest undelivered segments behind
the pin (what is in flight or in doubt) are deleted; what the sync reads is pinned before a commit can delete it. Gaps
made before Kafka's position is known are provisional: those up to it were delivered. All others are counted as dropped
and told in the ledger lane once a minute; that lane is never refused nor dropped, or nothing could be delivered. Small segments of a long outage are merged, once each.
What devices send leaves so much of the disk free that the log can be folded into the file. Others may fill it all the
same: queue.reserve takes up room that is given up then, so that what waits can still be delivered and trimmed. It is
taken again once the disk has twice as much to spare.

Identity. The queue_id is random. Where the disk has parted from what Kafka has (gateway.sync.lineage) the queue goes on
as another one: one transaction changes the id and tells it in the ledger; records keep their numbers, and those up to
meta "origin" count as the former queue's.

Recovery. At each start small tables are checked and numbers counted: one that is missing must be in the table of
gaps; after an unclean stop the whole file and the log are checked. The lock file says which queue must be there, and
whether its log must. Damage that is met in use is noted for the next start. A damaged database is set aside
(quarantine/), what has a good checksum is saved under a new queue_id, and the story, with what is known to be lost,
is told in status and in the ledger lane. The table salvage keeps the numbers that saved records had in the damaged
queue, and in those before it: Kafka may know only the first. Where damage took that away, meta "unmapped" names those
queues. Quarantines lie outside the cap, at most three, together no larger than it; where the disk gets near the floor
the oldest goes first.
"""

from gateway.codec import Entry, Shape
from gateway.queue.census import Count
from gateway.queue.ledger import statement
from gateway.queue.lock import in_use, lock_path
from gateway.queue.origin import Former, Origin, Run, Salvaged
from gateway.queue.past import Past
from gateway.queue.queue import Queue
from gateway.queue.salvaged import by_queue, numbered
from gateway.queue.schema import LANES, are_numbers
from gateway.queue.segments import Gap, Segment
from gateway.queue.settings import QueueSettings
from gateway.queue.state import Buried, DeadLetter
from gateway.queue.stats import LaneStats, QueueStats
from gateway.queue.story import UNREAD, Lost, SavedLane, Story

__all__ = [
    "LANES",
    "UNREAD",
    "Buried",
    "Count",
    "DeadLetter",
    "Entry",
    "Former",
    "Gap",
    "LaneStats",
    "Lost",
    "Origin",
    "Past",
    "Queue",
    "QueueSettings",
    "QueueStats",
    "Run",
    "Salvaged",
    "SavedLane",
    "Segment",
    "Shape",
    "Story",
    "are_numbers",
    "by_queue",
    "in_use",
    "lock_path",
    "numbered",
    "statement",
]

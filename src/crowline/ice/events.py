"""What an agent tells its user."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.base.send_problem import SendProblem
from crowline.base.transport import Transport
from crowline.ice.pair import ValidPair
from crowline.ice.states import PairInput, PairState


class LossReason(Enum):
    """Why a pair that worked may no longer be used."""

    CONSENT_EXPIRED = "the other side has not answered for 30 s"
    CONSENT_REVOKED = "the other side forbade further sending"
    NOMINATION_FAILED = "the nominating check got no answer"
    RESTARTED = "a restart has replaced it"
    LOCAL_REMOVED = "this side's address is gone"
    REMOTE_REMOVED = "the other side's address is gone"
    RELEASED = "it was let go after a restart"
    CONNECTION_LOST = "its TCP connection has ended"


class FailureReason(Enum):
    """Why no pair was found."""

    NO_ANSWER = "no check was answered"
    NO_CANDIDATES = "there was nothing to check"
    ALL_LOST = "every pair that worked is lost"
    NOTHING_LEFT = "no check could leave this machine"


class Oddity(Enum):
    """What an agent meets with and goes on; most of it is nothing that an honest other side causes."""

    FORGED_CHECK = "a check came that was not signed with this session's password"
    FORGED_ANSWER = "an answer came that the other side has not signed"
    ANSWER_FROM_ELSEWHERE = "an answer came from another address than the one that was asked"
    FORBIDDEN_CANDIDATE = "the other side named an address that may not be checked"
    TOO_MANY_CANDIDATES = "the other side named more candidates than are kept"
    SILENT_ADDRESS = "an address got all the packets that it may get before it answers"
    SLEPT = "this machine slept while checks were on their way"
    ENDLESS_CONFLICT = "the other side claims this side's role again and again"


class PairMoved(Struct, frozen=True):
    """A pair of the check list went from one state to another (`ice.states`): for agents with `tells_moves`.

    Told for every arrow of the diagram; that a pair has begun or ended is not.
    """

    base: Address
    remote: Address
    transport: Transport
    before: PairState
    cause: PairInput
    after: PairState


class PairValid(Struct, frozen=True):
    """A pair works in both directions; data may be sent on it."""

    pair: ValidPair


class PairReclassified(Struct, frozen=True):
    """A pair that works is of another `kind` than was thought: its checks had come before its candidate."""

    pair: ValidPair


class PairNominated(Struct, frozen=True):
    """Both sides agree on this pair; with renomination, in place of an earlier one."""

    pair: ValidPair


class PairLost(Struct, frozen=True):
    """Nothing may be sent on this pair any more (RFC 7675 §5.1)."""

    pair: ValidPair
    reason: LossReason


class IceFailed(Struct, frozen=True):
    """No pair works, and none will: all candidates are known, all checks are over, patience has ended."""

    reason: FailureReason


class RoleChanged(Struct, frozen=True):
    """A role conflict was settled by giving in (RFC 8445 §7.3.1.1)."""

    controlling: bool


class Restarted(Struct, frozen=True):
    """A new session has begun with new credentials of this side (RFC 8445 §9).

    Tell the other side the credentials and, after them, every candidate again. `by_peer`: the other side
    began it; else this side called `restart`.
    """

    by_peer: bool


class ConnectionWanted(Struct, frozen=True):
    """Connect the base `local` with `remote` by TCP, then call `connected`, or else `disconnected`.

    `simultaneous`: both sides dial at the same time (RFC 6544 §4: simultaneous open); else the other side
    listens. A connection that the other side opens meanwhile between these addresses is as good.
    """

    local: Address
    remote: Address
    simultaneous: bool


class ConnectionUnwanted(Struct, frozen=True):
    """The connection between these, or the attempt at it, serves nothing any more: end it. No call is due."""

    local: Address
    remote: Address


class SendRefused(Struct, frozen=True):
    """This machine did not let a datagram out; said once for each way and problem.

    The check goes on as if the datagram had been lost.
    """

    base: Address
    destination: Address
    problem: SendProblem


class Noticed(Struct, frozen=True):
    """Something odd happened; each kind is said once, `counters` has how often what was dropped."""

    oddity: Oddity


IceEvent: TypeAlias = (
    PairMoved
    | PairValid
    | PairReclassified
    | PairNominated
    | PairLost
    | IceFailed
    | RoleChanged
    | Restarted
    | ConnectionWanted
    | ConnectionUnwanted
    | SendRefused
    | Noticed
)

"""ICE (RFC 8445): candidates, pairs, check lists, the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crowline.base.lazy import lazy

if TYPE_CHECKING:
    from crowline.ice.agent import IceAgent
    from crowline.ice.attribute_line import (
        EndOfCandidates,
        IceAttribute,
        IceLite,
        IceOptions,
        IcePwd,
        IceUfrag,
        read_attribute,
    )
    from crowline.ice.candidate import Candidate, CandidateFactory, CandidateType, TcpType
    from crowline.ice.candidate_line import CandidateLine, MalformedIceLine
    from crowline.ice.events import (
        ConnectionUnwanted,
        ConnectionWanted,
        FailureReason,
        IceEvent,
        IceFailed,
        LossReason,
        Noticed,
        Oddity,
        PairLost,
        PairMoved,
        PairNominated,
        PairReclassified,
        PairValid,
        Restarted,
        RoleChanged,
        SendRefused,
    )
    from crowline.ice.line_signals import LineSignals
    from crowline.ice.lite import LiteAgent
    from crowline.ice.pair import ValidPair
    from crowline.ice.states import PairInput, PairState

__all__ = [
    "Candidate",
    "CandidateFactory",
    "CandidateLine",
    "CandidateType",
    "ConnectionUnwanted",
    "ConnectionWanted",
    "EndOfCandidates",
    "FailureReason",
    "IceAgent",
    "IceAttribute",
    "IceEvent",
    "IceFailed",
    "IceLite",
    "IceOptions",
    "IcePwd",
    "IceUfrag",
    "LineSignals",
    "LiteAgent",
    "LossReason",
    "MalformedIceLine",
    "Noticed",
    "Oddity",
    "PairInput",
    "PairLost",
    "PairMoved",
    "PairNominated",
    "PairReclassified",
    "PairState",
    "PairValid",
    "Restarted",
    "RoleChanged",
    "SendRefused",
    "TcpType",
    "ValidPair",
    "read_attribute",
]

__getattr__ = lazy(
    __name__,
    {
        "agent": "IceAgent",
        "attribute_line": "EndOfCandidates IceAttribute IceLite IceOptions IcePwd IceUfrag read_attribute",
        "candidate": "Candidate CandidateFactory CandidateType TcpType",
        "candidate_line": "CandidateLine MalformedIceLine",
        "events": (
            "ConnectionUnwanted ConnectionWanted FailureReason IceEvent IceFailed LossReason Noticed Oddity "
            "PairLost PairMoved PairNominated PairReclassified PairValid Restarted RoleChanged SendRefused"
        ),
        "line_signals": "LineSignals",
        "lite": "LiteAgent",
        "pair": "ValidPair",
        "states": "PairInput PairState",
    },
)

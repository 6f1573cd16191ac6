# -*- test-case-name: tests.support.test_rawclient -*-
"""
A small blocking iSCSI client that speaks in PDUs.

It shares no code with the package, so that it can check it, and sends what it is told to, right
or wrong: whole PDUs (C{sendPDU}), or any bytes (C{send}).  For right ones there are C{login},
C{command} and C{transfer}.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NamedTuple

from crc32c import crc32c

INITIATOR = "iqn.2001-04.com.example:raw"

NOP_OUT, SCSI_COMMAND, TASK_REQUEST, LOGIN, TEXT, DATA_OUT, LOGOUT = range(7)
NOP_IN, SCSI_RESPONSE, TASK_RESPONSE, LOGIN_ANSWER, TEXT_ANSWER, DATA_IN, LOGOUT_ANSWER = range(0x20, 0x27)
R2T, ASYNC, REJECT = 0x31, 0x32, 0x3F

FINAL, READ, WRITE = 0x80, 0x40, 0x20
NO_TAG = 0xFFFFFFFF

_WINDOW = struct.Struct(">III")


class Closed(Exception):
    """The peer has ended the connection."""


class PDU(NamedTuple):
    """
    One PDU as it came.

    @ivar header: the 48 bytes of the basic header segment.
    @ivar ahs: the additional header segments.
    @ivar data: the data segment, without padding.
    """

    header: bytes
    ahs: bytes
    data: bytes

    @property
    def opcode(self) -> int:
        return self.header[0] & 0x3F

    @property
    def flags(self) -> int:
        return self.header[1]

    @property
    def itt(self) -> int:
        return self.word(16)

    @property
    def ttt(self) -> int:
        return self.word(20)

    @property
    def statSN(self) -> int:
        return self.word(24)

    @property
    def expCmdSN(self) -> int:
        return self.word(28)

    @property
    def maxCmdSN(self) -> int:
        return self.word(32)

    def word(self, offset: int) -> int:
        """The 32-bit number at an offset of the header."""
        return int.from_bytes(self.header[offset : offset + 4], "big")

    @property
    def text(self) -> dict[str, str]:
        """The data segment as key=value pairs."""
        pairs = (item.partition("=") for item in self.data.decode("utf-8").split("\0") if item)
        return {key: value for key, _, value in pairs}


class Outcome(NamedTuple):
    """
    How a command ended.

    @ivar status: the SAM status.
    @ivar data: the Data-In.
    @ivar sense: the sense data; empty if there were none.
    @ivar residual: positive for an underflow, negative for an overflow.
    """

    status: int
    data: bytes
    sense: bytes
    residual: int

    @property
    def asc(self) -> int:
        """Additional sense code and qualifier as one number; 0 without sense data."""
        return int.from_bytes(self.sense[12:14], "big")

    @property
    def senseKey(self) -> int:
        return self.sense[2] & 15 if self.sense else 0


def header(opcode: int, flags: int = FINAL, *, immediate: bool = False, **words: int | bytes) -> bytearray:
    """
    A basic header segment.

    @param words: fields by their offset, as C{at16=itt}: numbers take four bytes.
    """
    made = bytearray(48)
    made[0] = opcode | (0x40 if immediate else 0)
    made[1] = flags
    for name, value in words.items():
        offset = int(name.removeprefix("at"))
        content = value.to_bytes(4, "big") if isinstance(value, int) else value
        made[offset : offset + len(content)] = content
    return made


def lunField(lun: int) -> bytes:
    """A logical unit number as the eight bytes of a header (flat addressing from 256 on)."""
    return (lun if lun < 256 else 0x4000 | lun).to_bytes(2, "big") + bytes(6)


class RawClient:
    """
    One connection, and the session that it is.

    @ivar cmdSN: the number of the next command.
    @ivar expStatSN: the number that the next status should have.
    @ivar headerDigest: headers are sent and expected with a CRC32C.
    @ivar dataDigest: data segments are.
    @ivar answers: the keys that the target answered in C{login}.
    """

    def __init__(self, address: tuple[str, int] | socket.socket, timeout: float = 10.0) -> None:
        made = address if isinstance(address, socket.socket) else socket.create_connection(address, timeout)
        made.settimeout(timeout)
        if made.family != socket.AF_UNIX:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = made
        self._stream = made.makefile("rb", buffering=1 << 18)
        self.cmdSN = 1
        self.expStatSN = 0
        self._tag = 0
        self.headerDigest = self.dataDigest = False
        self.answers: dict[str, str] = {}

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection, without a logout."""
        self._stream.close()
        self.socket.close()

    # Bytes and PDUs

    def send(self, data: bytes) -> None:
        """Send these bytes as they are."""
        self.socket.sendall(data)

    def encode(self, head: bytes | bytearray, data: bytes = b"", ahs: bytes = b"") -> bytes:
        """A PDU as it goes out: with lengths, padding and the digests that were negotiated."""
        made = bytearray(head)
        made[4] = len(ahs) // 4
        made[5:8] = len(data).to_bytes(3, "big")
        made += ahs
        if self.headerDigest:
            made += crc32c(bytes(made)).to_bytes(4, "little")
        padded = data + bytes(-len(data) % 4)
        digest = crc32c(padded).to_bytes(4, "little") if self.dataDigest and data else b""
        return bytes(made) + padded + digest

    def sendPDU(self, head: bytes | bytearray, data: bytes = b"", ahs: bytes = b"") -> None:
        """Send one PDU, encoded."""
        self.send(self.encode(head, data, ahs))

    def recv(self, count: int) -> bytes:
        """
        Receive so many bytes.

        @raise Closed: if the connection ended first.
        """
        try:
            data: bytes = self._stream.read(count)
        except ConnectionError as error:
            raise Closed(str(error)) from error
        if len(data) < count:
            raise Closed(f"{len(data)} of {count} bytes")
        return data

    def recvPDU(self) -> PDU:
        """
        Receive one PDU; its digests are checked, and expStatSN follows its StatSN.

        @raise Closed: if the connection ended.
        """
        head = self.recv(48)
        ahs = self.recv(4 * head[4])
        if self.headerDigest:
            self._check("header", head + ahs)
        length = int.from_bytes(head[5:8], "big")
        data = self.recv(length + -length % 4)
        if self.dataDigest and length:
            self._check("data", data)
        pdu = PDU(head, ahs, data[:length])
        if pdu.opcode not in (R2T, DATA_IN) or (pdu.opcode == DATA_IN and pdu.flags & 1):
            self.expStatSN = pdu.statSN + 1 & NO_TAG
        return pdu

    def _check(self, what: str, covered: bytes) -> None:
        told = int.from_bytes(self.recv(4), "little")
        if told != crc32c(covered):
            raise AssertionError(f"{what} digest {told:08x} should be {crc32c(covered):08x}")

    def ended(self) -> bool:
        """Whether the target ends the connection now: waits for the end, or for one more PDU."""
        try:
            self.recvPDU()
        except Closed:
            return True
        return False

    def tag(self) -> int:
        """A new initiator task tag."""
        self._tag += 1
        return self._tag

    def number(self) -> int:
        """The CmdSN for a command that is not immediate."""
        self.cmdSN = (self.cmdSN + 1) & NO_TAG
        return self.cmdSN - 1 & NO_TAG

    # Sessions

    def loginPDU(
        self,
        keys: Iterable[tuple[str, str]],
        flags: int = 0x87,
        isid: bytes = b"\x80\0\0\0\0\1",
        tsih: int = 0,
        cid: int = 0,
    ) -> PDU:
        """Send one Login Request (RFC 7143 11.12) and receive its answer."""
        text = "".join(f"{key}={value}\0" for key, value in keys).encode()
        head = header(LOGIN, flags, immediate=True, at16=0, at24=self.cmdSN, at28=self.expStatSN)
        head[8:14] = isid
        head[14:16] = tsih.to_bytes(2, "big")
        head[20:22] = cid.to_bytes(2, "big")
        self.sendPDU(head, text)
        return self.recvPDU()

    def login(
        self,
        target: str | None,
        keys: dict[str, str] | None = None,
        initiator: str = INITIATOR,
        isid: bytes = b"\x80\0\0\0\0\1",
    ) -> PDU:
        """
        Log in in one stage, to a target or for discovery.

        @return: the last Login Response; look at its bytes 36 and 37 for a refusal.
        """
        pairs = [("InitiatorName", initiator)]
        pairs += [("TargetName", target)] if target else [("SessionType", "Discovery")]
        pairs += list((keys or {}).items())
        answer = self.loginPDU(pairs, isid=isid)
        self.answers.update(answer.text)
        while not answer.header[36] and not answer.flags & 0x80:
            answer = self.loginPDU([], isid=isid, tsih=int.from_bytes(answer.header[14:16], "big"))
            self.answers.update(answer.text)
        if not answer.header[36]:
            self.headerDigest = self.answers.get("HeaderDigest") == "CRC32C"
            self.dataDigest = self.answers.get("DataDigest") == "CRC32C"
        return answer

    def logout(self, reason: int = 0) -> PDU:
        """Close the session (RFC 7143 11.14)."""
        self.sendPDU(header(LOGOUT, 0x80 | reason, at16=self.tag(), at24=self.number(), at28=self.expStatSN))
        return self.recvPDU()

    def nop(self, data: bytes = b"", ttt: int = NO_TAG, lun: int = 0) -> PDU:
        """Send an immediate ping and receive what comes back (RFC 7143 11.18)."""
        head = header(
            NOP_OUT, immediate=True, at16=self.tag(), at20=ttt, at24=self.cmdSN, at28=self.expStatSN
        )
        head[8:16] = lunField(lun)
        self.sendPDU(head, data)
        return self.recvPDU()

    def text(self, **keys: str) -> PDU:
        """Send a Text Request and receive its answer (RFC 7143 11.10)."""
        data = "".join(f"{key}={value}\0" for key, value in keys.items()).encode()
        self.sendPDU(
            header(TEXT, at16=self.tag(), at20=NO_TAG, at24=self.number(), at28=self.expStatSN), data
        )
        return self.recvPDU()

    # Commands

    def commandHead(self, cdb: bytes, lun: int = 0, flags: int = FINAL, length: int = 0) -> bytearray:
        """The header of a SCSI Command (RFC 7143 11.3) with a new tag and the next CmdSN."""
        head = header(
            SCSI_COMMAND, flags | 1, at16=self.tag(), at20=length, at24=self.number(), at28=self.expStatSN
        )
        head[8:16] = lunField(lun)
        head[32 : 32 + len(cdb)] = cdb
        return head

    def command(
        self, cdb: bytes, lun: int = 0, read: int = 0, write: bytes = b"", immediate: int = 0
    ) -> Outcome:
        """
        Run one command to its end; Data-Out is sent as R2Ts ask for it.

        @param read: bytes of Data-In expected.
        @param immediate: how much of C{write} goes with the command.
        """
        flags = FINAL | (READ if read else 0) | (WRITE if write else 0)
        head = self.commandHead(cdb, lun, flags, read or len(write))
        self.sendPDU(head, write[:immediate])
        return self.outcome(int.from_bytes(head[16:20], "big"), write)

    def outcome(self, tag: int, write: bytes = b"") -> Outcome:
        """Receive until the command with this tag has ended."""
        data = bytearray()
        while True:
            pdu = self.recvPDU()
            if pdu.itt != tag:
                raise AssertionError(f"a PDU of another task: {pdu}")
            if pdu.opcode == R2T:
                self.answer(pdu, write)
            elif pdu.opcode == DATA_IN:
                offset = pdu.word(40)
                data[offset : offset + len(pdu.data)] = pdu.data
                if pdu.flags & 1:
                    return Outcome(pdu.header[3], bytes(data), b"", residual(pdu))
            elif pdu.opcode == SCSI_RESPONSE:
                return Outcome(pdu.header[3], bytes(data), pdu.data[2:], residual(pdu))
            else:
                raise AssertionError(f"not an answer to a command: {pdu}")

    def answer(self, pdu: PDU, write: bytes, segment: int = 65536) -> None:
        """Send what an R2T asks for (RFC 7143 11.8)."""
        offset, wanted = pdu.word(40), pdu.word(44)
        end = offset + wanted
        for number, start in enumerate(range(offset, end, segment)):
            piece = write[start : min(start + segment, end)]
            last = FINAL if start + segment >= end else 0
            head = header(
                DATA_OUT, last, at16=pdu.itt, at20=pdu.ttt, at28=self.expStatSN, at36=number, at40=start
            )
            head[8:16] = pdu.header[8:16]
            self.sendPDU(head, piece)

    def transfer(
        self,
        count: int,
        depth: int,
        blocks: int,
        place: Callable[[int], int],
        write: bytes = b"",
        lun: int = 0,
        immediate: int = 0,
    ) -> int:
        """
        Run many READ(10)s or WRITE(10)s with several outstanding.

        @param place: the logical block of the n-th.
        @param write: what each writes; empty to read.
        @param immediate: how much of C{write} goes with the command.
        @return: bytes of data transferred.
        @raise AssertionError: if one does not end with GOOD.
        """
        length = blocks * 512
        flags = FINAL | (WRITE if write else READ)
        sent = done = moved = 0
        while done < count:
            batch = []
            while sent < count and sent - done < depth:
                cdb = struct.pack(">BxIxHx", 0x2A if write else 0x28, place(sent), blocks)
                batch.append(self.encode(self.commandHead(cdb, lun, flags, length), write[:immediate]))
                sent += 1
            if batch:
                self.send(b"".join(batch))
            pdu = self.recvPDU()
            if pdu.opcode == R2T:
                self.answer(pdu, write)
            elif pdu.opcode == DATA_IN or pdu.opcode == SCSI_RESPONSE:
                moved += len(pdu.data) if pdu.opcode == DATA_IN else 0
                if pdu.opcode == SCSI_RESPONSE or pdu.flags & 1:
                    if pdu.header[3]:
                        raise AssertionError(f"status {pdu.header[3]:#x}: {pdu}")
                    done += 1
        return moved + done * len(write)


def residual(pdu: PDU) -> int:
    """The residual count: positive for an underflow, negative for an overflow (RFC 7143 11.4.5)."""
    return pdu.word(44) if pdu.flags & 2 else -pdu.word(44) if pdu.flags & 4 else 0

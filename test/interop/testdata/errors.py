"""Sends ICMP errors about a UDP flow, as a router outside does.

Arguments: source of the errors, outside address and port of the flow, and its remote address
and port.
"""

import logging
import sys

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.config import conf
from scapy.layers.inet import ICMP, IP, UDP
from scapy.packet import Raw
from scapy.sendrecv import send

router, outside, outside_port, remote, remote_port = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
conf.verb = 0


def quoted(**header):
    """A packet of the flow as the remote host got it."""
    return IP(src=outside, dst=remote, ttl=60, **header) / UDP(sport=outside_port, dport=remote_port) / Raw(b"quoted")


CASES = [
    # code of "destination unreachable", which names the case; the error
    (0, ICMP(type=3, code=0) / quoted()),
    (1, ICMP(type=3, code=1) / IP(bytes(quoted())[:28])),  # header and eight octets (RFC 792)
    (5, ICMP(type=3, code=5, chksum=0x1234) / quoted()),
    (6, ICMP(type=3, code=6) / quoted(chksum=0x1234)),
    (7, ICMP(type=3, code=7) / IP(src=outside, dst=remote) / UDP(sport=outside_port, dport=remote_port, chksum=0x1234) / Raw(b"quoted")),
    (8, ICMP(type=3, code=8) / IP(src=outside, dst=remote) / UDP(sport=outside_port ^ 1, dport=remote_port)),
    (9, ICMP(type=3, code=9) / IP(bytes(quoted())[:20])),  # no port
    (10, ICMP(type=3, code=10) / quoted()),
]

send([IP(src=router, dst=outside) / error for code, error in CASES])

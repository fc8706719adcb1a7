"""Sends UDP datagrams from one endpoint to another in fragments that Scapy makes.

Arguments: source address and port, destination address and port. Each datagram begins with
its name: the order of its fragments, or what is wrong with them.
"""

import logging
import sys

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)

from scapy.config import conf
from scapy.layers.inet import IP, UDP, fragment
from scapy.packet import Raw
from scapy.sendrecv import send

source, source_port, target, target_port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
conf.verb = 0
number = 1000
packets = []  # sent at the end, at once


def parts(name, filler="x"):
    """The fragments of a datagram: three of 800 octets, and one of the rest."""
    global number
    number += 1
    text = name + " " + filler * (3000 - len(name))
    whole = IP(src=source, dst=target, id=number) / UDP(sport=source_port, dport=target_port) / Raw(text)
    return fragment(IP(bytes(whole)), fragsize=800)


def other(part, skip, octets):
    """Other content for octets of a fragment, after those to skip."""
    p = part.copy()
    p.frag += skip // 8
    p.payload = Raw(b"y" * octets)
    del p.len, p.chksum
    return p


for order in ("0123", "3210", "1032", "2301", "0213", "3120"):
    whole = parts(order)
    packets.extend(whole[int(i)] for i in order)

whole = parts("twice")
packets.extend(whole[i] for i in (0, 1, 1, 2, 3))

# These lie within what came before.
whole = parts("within")
packets.extend([whole[0], whole[1], other(whole[1], 200, 400), whole[2], whole[3]])

whole = parts("within-header")  # other ports (RFC 1858)
packets.extend([whole[0], other(whole[0], 0, 400), whole[1], whole[2], whole[3]])

# These go beyond it.
whole = parts("beyond")
packets.extend([whole[0], whole[1], other(whole[1], 400, 800), whole[2], whole[3]])

whole = parts("beyond-backwards")
packets.extend([whole[3], whole[2], other(whole[1], 400, 800), whole[1], whole[0]])

whole = parts("beyond-header")
packets.extend([whole[0], other(whole[0], 8, 1600), whole[1], whole[2], whole[3]])

whole = parts("gap")
packets.extend([whole[0], whole[1], whole[3]])

packets.append(IP(src=source, dst=target) / UDP(sport=source_port, dport=target_port) / Raw("end "))
send(packets)

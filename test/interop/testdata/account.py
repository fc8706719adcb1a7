"""Sends the accounting requests of a JSON list with pyrad, and prints, for each,
whether pyrad accepted the reply.

account.py HOST PORT SECRET < REQUESTS
Each request is an object of attribute names and values.
"""

import io
import json
import sys

from pyrad import client, dictionary, packet

# Acct-Status-Type etc., as RFC 2865, 2866 and 2869 number them.
DICTIONARY = """
ATTRIBUTE User-Name 1 string
ATTRIBUTE NAS-IP-Address 4 ipaddr
ATTRIBUTE Framed-IP-Address 8 ipaddr
ATTRIBUTE Calling-Station-Id 31 string
ATTRIBUTE NAS-Identifier 32 string
ATTRIBUTE Acct-Status-Type 40 integer
ATTRIBUTE Acct-Delay-Time 41 integer
ATTRIBUTE Acct-Input-Octets 42 integer
ATTRIBUTE Acct-Session-Id 44 string
ATTRIBUTE Acct-Session-Time 46 integer
ATTRIBUTE Event-Timestamp 55 date
VALUE Acct-Status-Type Start 1
VALUE Acct-Status-Type Stop 2
VALUE Acct-Status-Type Interim-Update 3
VALUE Acct-Status-Type Accounting-On 7
VALUE Acct-Status-Type Accounting-Off 8
"""


def main(host, port, secret):
    words = dictionary.Dictionary(io.StringIO(DICTIONARY))
    nas = client.Client(server=host, acctport=int(port), secret=secret.encode(), dict=words)
    nas.timeout, nas.retries = 5, 1
    for attributes in json.load(sys.stdin):
        request = nas.CreateAcctPacket()
        for name, value in attributes.items():
            request[name] = value
        try:
            reply = nas.SendPacket(request)  # pyrad verifies the authenticator
        except client.Timeout:
            print("no reply")
            continue
        print("answered" if reply.code == packet.AccountingResponse else reply.code)


main(*sys.argv[1:])

# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Microsoft's verification vectors of the RSS hash.

https://learn.microsoft.com/en-us/windows-hardware/drivers/network/verifying-the-rss-hash-calculation

The page puts the destination first; here it is the source.
"""

from typing import NamedTuple

KEY = bytes(
    (
        *(0x6D, 0x5A, 0x56, 0xDA, 0x25, 0x5B, 0x0E, 0xC2),
        *(0x41, 0x67, 0x25, 0x3D, 0x43, 0xA3, 0x8F, 0xB0),
        *(0xD0, 0xCA, 0x2B, 0xCB, 0xAE, 0x7B, 0x30, 0xB4),
        *(0x77, 0xCB, 0x2D, 0xA3, 0x80, 0x30, 0xF2, 0x0C),
        *(0x6A, 0x42, 0xB7, 0x3B, 0xBE, 0xAC, 0x01, 0xFA),
    )
)


class Vector(NamedTuple):
    """One line of the page: a flow, its hash without ports, its hash with TCP ports."""

    source: str
    source_port: int
    destination: str
    destination_port: int
    address_hash: int
    tcp_hash: int


IPV4 = (
    Vector("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323E8FC2, 0x51CCC178),
    Vector("199.92.111.2", 14230, "65.69.140.83", 4739, 0xD718262A, 0xC626B0EA),
    Vector("24.19.198.95", 12898, "12.22.207.184", 38024, 0xD2D0A5DE, 0x5C2B394A),
    Vector("38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xAFC7327F),
    Vector("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5D1809C5, 0x10E828A2),
)

IPV6 = (
    Vector(
        *("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766),
        *(0x2CC18CD5, 0x40207D3D),
    ),
    Vector(
        *("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739),
        *(0x0F0C461C, 0xDDE51BBF),
    ),
    Vector(
        *("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024),
        *(0x4B61E985, 0x02D1FEEF),
    ),
)

VECTORS = IPV4 + IPV6

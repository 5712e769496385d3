# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""A process that owns a multi-queue tap and tells what it reads, as a VMM would be one.

Run as a program: NAME QUEUES HEADER_SIZE. Prints "ready", then a JSON line a
packet; ends when its standard input does.
"""

import json
import os
import select
import sys

from vnethash.kernel.tun import TunDevice


def main() -> None:
    name, queues, header_size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with TunDevice.create(name, queues, vnet_header_size=header_size) as tap:
        poll = select.poll()
        poll.register(sys.stdin, select.POLLHUP | select.POLLIN)
        for fd in tap.fds:
            poll.register(fd, select.POLLIN)
        print("ready", flush=True)
        while True:
            for fd, _ in poll.poll():
                if fd == sys.stdin.fileno():
                    return
                data = os.read(fd, 1 << 16)
                line = {"queue": tap.fds.index(fd), "data": data[header_size:].hex()}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

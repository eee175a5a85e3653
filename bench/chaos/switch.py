"""A switch between hosts that are network namespaces: latency, loss, and ways that can be cut.

    python -m bench.chaos.switch SEED DELAY LOSS HOST...

The first host is the namespace that this process starts in; it makes one for each of the others.
Each has a TUN device with the address 10.77.0.N, and this process holds the device's other end: it
reads an IP packet, and DELAY seconds later writes it to the host that the packet is for, or never.
The kernels' TCP does the rest: it sends again, waits longer each time, and keeps connections half
open. Linux has `tc netem` for delay and loss, but only where its module can be loaded.

Its first line of output is a JSON object: for each host the descriptor of its namespace. Each line
that it reads is a JSON list of all ways [from, to] that are cut from now on. At the end of its
input it says how many packets it carried, lost, and met where the way was cut.
"""

import asyncio
import ctypes
import fcntl
import json
import os
import random
import struct
import subprocess
import sys
from collections import Counter

SUBNET = "10.77.0"
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN_NO_PI = 0x400454CA, 0x1001
_PACKET_BYTES = 65535
_IPV4 = 4
_LAST_OF_TARGET = 19  # the last byte of the address that an IPv4 packet is for

_libc = ctypes.CDLL(None, use_errno=True)


def enter_new_namespace() -> None:
    """This process gets a network of its own, and so does what it starts from now on."""
    if _libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "a network namespace cannot be made; this needs root")


def _plug_in(number: int) -> int:
    """Give the present namespace its device, and return the descriptor of the other end."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"wire", _IFF_TUN_NO_PI))
    for words in (
        f"addr add {SUBNET}.{number}/24 dev wire",
        "link set wire up",
        "link set lo up",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    return tun


class Switch:
    def __init__(self, seed: int, delay: float, loss: float, hosts: list[str]) -> None:
        self.namespaces: dict[str, int] = {}
        self.packets: Counter[str] = Counter()
        self.cut: set[tuple[str, str]] = set()
        self._hosts, self._delay, self._loss = hosts, delay, loss
        self._random = random.Random(seed)
        self._tuns: list[int] = []
        for number, host in enumerate(hosts, start=1):
            if number > 1:
                enter_new_namespace()
            self._tuns.append(_plug_in(number))
            self.namespaces[host] = os.open("/proc/self/ns/net", os.O_RDONLY)

    async def run(self) -> None:
        """Forward until the input ends."""
        loop = asyncio.get_running_loop()
        for host, tun in zip(self._hosts, self._tuns, strict=True):
            loop.add_reader(tun, self._forward, host, tun)
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        while line := await commands.readline():
            self.cut = {(source, target) for source, target in json.loads(line)}

    def _forward(self, source: str, tun: int) -> None:
        packet = os.read(tun, _PACKET_BYTES)
        number = packet[_LAST_OF_TARGET]
        if packet[0] >> 4 != _IPV4 or not 1 <= number <= len(self._hosts):
            return  # IPv6 looks for neighbours; a broadcast
        if (source, self._hosts[number - 1]) in self.cut:
            self.packets["cut"] += 1
        elif self._random.random() < self._loss:
            self.packets["lost"] += 1
        else:
            self.packets["carried"] += 1
            loop = asyncio.get_running_loop()
            loop.call_later(self._delay, os.write, self._tuns[number - 1], packet)


def main() -> None:
    seed, delay, loss, *hosts = sys.argv[1:]
    switch = Switch(int(seed), float(delay), float(loss), hosts)
    print(json.dumps(switch.namespaces), flush=True)
    asyncio.run(switch.run())
    print(json.dumps(switch.packets))


if __name__ == "__main__":
    main()

# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
A Ceph cluster of one machine with its S3 service, as a program of its own.

One monitor, one OSD whose objects are in memory, and radosgw; with cephx, because radosgw waits
for ever without it. It prints radosgw's port once that answers. When its standard input ends it
ends all three and removes their files.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from tests.peers import peer

ACCESS_KEY = "mykey"
SECRET_KEY = "mysecret"

#: Seconds.
_PATIENCE = 90

_CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{monitor}/0
mon_initial_members = a
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = {root}/keyring
run_dir = {root}
admin_socket =
pid_file =
log_file = {root}/$name.log
mon_data = {root}/mon
osd_data = {root}/osd
rgw_data = {root}/rgw
ms_bind_ipv6 = false
ms_bind_msgr1 = false
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
mon_data_avail_crit = 1
mon_data_avail_warn = 1
osd_objectstore = memstore
memstore_device_bytes = {capacity}
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
rgw_frontends = beast endpoint=127.0.0.1:{gateway}
rgw_thread_pool_size = 64
"""

_KEYS = {
    "mon.": "mon",
    "client.admin": "mon osd mgr mds",
    "client.rgw": "mon osd",
    "osd.0": "mon osd",
}


class Cluster:
    """
    The three programs.

    :param root: an empty folder for their files.
    :param capacity: how many bytes of objects there may be.
    """

    def __init__(self, root: Path, capacity: int = 4 << 30) -> None:
        self.root = root
        self.port = free_port()
        self._configuration = root / "ceph.conf"
        self._capacity = capacity
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all of them, and make the user."""
        root = self.root
        fsid, monitor = str(uuid.uuid4()), free_port()
        self._configuration.write_text(
            _CONFIGURATION.format(
                fsid=fsid, root=root, monitor=monitor, gateway=self.port, capacity=self._capacity
            )
        )
        keyring = str(root / "keyring")
        self._call("ceph-authtool", "--create-keyring", keyring)
        for name, services in _KEYS.items():
            capabilities = [
                word for each in services.split() for word in ("--cap", each, "allow *")
            ]
            self._call("ceph-authtool", keyring, "--gen-key", "-n", name, *capabilities)
        monmap = str(root / "monmap")
        address = f"[v2:127.0.0.1:{monitor}]"
        self._call("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        for name in "mon", "osd", "rgw":
            (root / name).mkdir()
        mkfs = ("--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._call(peer("ceph-mon"), "-c", str(self._configuration), *mkfs)
        self._run(peer("ceph-mon"), "-i", "a", "-f")
        osd = str(uuid.uuid4())
        self._ceph("osd", "new", osd, "0")
        self._ceph("auth", "import", "-i", keyring)
        conf = ("-c", str(self._configuration))
        self._call(peer("ceph-osd"), *conf, "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._run(peer("ceph-osd"), "-i", "0", "-f")
        self._run(peer("radosgw"), "-n", "client.rgw", "-f")
        keys = (f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")
        user = ("--uid=user", "--display-name=user", *keys)
        self._call("radosgw-admin", *conf, "user", "create", *user)
        self._wait()

    def stop(self) -> None:
        """End all of them."""
        for running in reversed(self._running):
            running.kill()
            running.wait()

    def _ceph(self, *args: str) -> None:
        self._call("ceph", "-c", str(self._configuration), "--connect-timeout", "30", *args)

    def _call(self, *args: str) -> None:
        done = subprocess.run(
            args,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(args)}: {done.stdout.decode(errors='replace')}")

    def _run(self, program: str, *args: str) -> None:
        with open(self.root / "output", "ab") as output:
            self._running.append(
                subprocess.Popen(
                    [program, "-c", str(self._configuration), *args],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            )

    def _wait(self) -> None:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)


def free_port() -> int:
    """Find a port that nobody listens on: Ceph can't choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def main() -> None:
    """Serve."""
    root = Path(tempfile.mkdtemp(prefix="desync-ceph-"))
    cluster = Cluster(root)
    try:
        cluster.start()
        print(cluster.port, flush=True)
        sys.stdin.buffer.read()
    finally:
        cluster.stop()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()

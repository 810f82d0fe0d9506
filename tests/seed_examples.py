# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""
The command lines of the README that the project started from, which have to work, in its order.

Those that run already say what has to be there before and afterwards. For the others whoever
switches their feature on adds that.
"""

from __future__ import annotations

import json
import signal
from typing import NamedTuple

from tests.readme_buckets import asks_for, bucket_holds, has_bucket, has_keys
from tests.readme_sandbox import (
    Given,
    Then,
    While,
    all_is_old,
    becomes_tar,
    begins_with,
    cannot_be_read,
    describes,
    has_archive,
    has_bad_chunk,
    has_block_device,
    has_changed,
    has_file,
    has_folder_for,
    has_index,
    has_index_of_index,
    has_store,
    has_tar,
    has_text,
    has_tree,
    holds,
    holds_nothing_but,
    is_down,
    is_rebuilt,
    is_unmounted,
    mounts,
    names_bad_chunk,
    packs,
    prints,
    prints_figures,
    prints_ids,
    prints_json,
    prints_nothing,
    unpacks,
    writes_json,
)

CORE = "core"


def _served(server: str, *clients: str) -> str:
    """
    Give the lines that start a server at a port of its own, run clients, and end the server.

    ``$URL`` in what the clients do stands for where it listens.
    """
    return "\n".join(
        (
            f"{server} -l 127.0.0.1:0 2> said &",
            "server=$!",
            'trap "kill $server" EXIT',
            "until grep -q listening said; do kill -0 $server; sleep 0.1; done",
            "URL=$(sed -n 's/^listening on //p' said)",
            *clients,
            "trap - EXIT",
            "kill $server",
            "wait $server",
        )
    )


# The server's name as clients look for it: not in the common name any more. And without questions.
_RUN_CERTIFICATES = """\
openssl genrsa -out ca.key 2048
openssl req -x509 -new -nodes -key ca.key -sha256 -days 3650 -out ca.crt -subj /CN=ca
for name in server client; do
  openssl genrsa -out $name.key 2048
  openssl req -new -key $name.key -out $name.csr -subj /CN=$name
  echo subjectAltName=IP:127.0.0.1 > names
  openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out $name.crt -days 3650 -extfile names
done
"""  # noqa: E501

FEATURES = {
    CORE: True,
    "archives": True,
    "block-devices": True,
    "cache": True,
    "chunk-server": True,
    "failover": True,
    "http": True,
    "https": True,
    "in-place": True,
    "index-server": True,
    "mount": True,
    "reload": True,
    "s3": True,
    "seeds": True,
    "sftp": True,
    "ssh": True,
}
"""What the examples need, and whether it is there."""


class Example(NamedTuple):
    """
    The command lines of one block or sentence of the README.

    :ivar name: what the test is called.
    :ivar about: what it shows, a sentence.
    :ivar text: as it is in the README.
    :ivar needs: features, without which it is skipped.
    :ivar given: what has to be there before.
    :ivar then: what has to be so afterwards.
    :ivar meanwhile: what has to be so while it runs; it is ended after that.
    :ivar run: what is run if the README has only part of a command, or a slip of the pen.
    :ivar stdin: what the user types.
    :ivar code: the exit code that it ends with.
    :ivar section: where it is in the README.
    :ivar part_of: the example that this one is the local part of: it can be switched on sooner.
    """

    name: str
    about: str
    text: str
    needs: tuple[str, ...]
    given: tuple[Given, ...] = ()
    then: tuple[Then, ...] = ()
    run: str = ""
    stdin: str = ""
    code: int = 0
    section: str = "Examples"
    part_of: str = ""
    meanwhile: tuple[While, ...] = ()


COMMANDS = {
    "extract": CORE,
    "verify": CORE,
    "list-chunks": CORE,
    "cache": "cache",
    "chop": CORE,
    "pull": "ssh",
    "tar": "archives",
    "untar": "archives",
    "prune": CORE,
    "verify-index": CORE,
    "chunk-server": "chunk-server",
    "index-server": "index-server",
    "make": CORE,
    "mount-index": "mount",
    "info": CORE,
    "mtree": "archives",
}
"""The section "Subcommands": each has to be there, with the feature that brings it."""

CONFIGURATION = {
    "s3-credentials": {
        "http://localhost": {"access-key": "MYACCESSKEY", "secret-key": "MYSECRETKEY"},
        "https://127.0.0.1:9000": {"aws-credentials-file": "/Users/user/.aws/credentials"},
        "https://127.0.0.1:8000": {
            "aws-credentials-file": "/Users/user/.aws/credentials",
            "aws-profile": "profile_static",
        },
        "https://s3.us-west-2.amazonaws.com": {
            "aws-credentials-file": "/Users/user/.aws/credentials",
            "aws-region": "us-west-2",
            "aws-profile": "profile_refreshable",
        },
    },
    "oci-credentials": None,
    "store-options": {
        "https://192.168.1.1/store": {
            "client-cert": "/path/to/crt",
            "client-key": "/path/to/key",
            "error-retry": 1,
        },
        "https://10.0.0.1/": {"http-auth": "Bearer abcabcabc"},
        "https://example.com/*/*/": {"http-auth": "Bearer dXNlcjpwYXNzd29yZA=="},
        "https://cdn.example.com/": {
            "http-cookie": "PHPSESSID=298zf09hf012fh2; csrftoken=u32t4o3tb3gg43"
        },
        "/path/to/local/cache": {"uncompressed": True},
    },
}
"""The example of a configuration file, without its two trailing commas, which JSON doesn't have."""

_CERTIFICATES = """\
openssl genrsa -out ca.key 4096
openssl req -x509 -new -nodes -key ca.key -sha256 -days 3650 -out ca.crt
openssl genrsa -out server.key 2048
openssl req -new -key server.key -out server.csr (Common Name should be the server name)
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 3650 -sha256
"""  # noqa: E501
_CLIENT_CERTIFICATE = """\
openssl genrsa -out client.key 2048
openssl req -new -key client.key -out client.csr
openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out client.crt -days 3650 -sha256
"""  # noqa: E501

_BEFORE_THE_EXAMPLES = (
    Example(
        "pull_as_casync",
        "Set on the client, it makes the server run desync in place of casync.",
        "CASYNC_REMOTE_PATH=desync",
        needs=("ssh",),
        run="CASYNC_REMOTE_PATH=desync desync extract -s ssh://192.168.1.1/store blob.caibx blob",
        given=(
            has_store("ssh://192.168.1.1/store", "blob"),
            has_index("blob.caibx", "blob"),
        ),
        then=(is_rebuilt("blob"),),
        section="Subcommands",
    ),
    Example(
        "verify_repair",
        "Bad chunks of a store or cache are evicted.",
        "verfiy -r",
        needs=(CORE,),
        given=(
            has_store("/some/local/store", "somefile.tar"),
            has_bad_chunk("/some/local/store", "somefile.tar"),
        ),
        then=(names_bad_chunk("/some/local/store", "somefile.tar", stays=False),),
        run="desync verify -r -s /some/local/store",
        section="Caching",
    ),
    Example(
        "several_stores",
        "A chunk that the first store doesn't have is looked for in the next one.",
        "-s <store1> -s <store2> -s <store3>",
        needs=(CORE,),
        given=(
            has_store("store1", "image-v2"),
            has_store("store2"),
            has_store("store3", "image-v1"),
            has_index("image-v1.caibx", "image-v1"),
        ),
        then=(is_rebuilt("image-v1"),),
        run="desync extract -s store1 -s store2 -s store3 image-v1.caibx image-v1",
        section="Multiple chunk stores",
    ),
    Example(
        "several_stores_and_cache",
        "What any of the stores had is in the cache afterwards.",
        "-s <store1> -s <store2> -c <cache>",
        needs=("cache",),
        given=(
            has_store("store1", "image-v2"),
            has_store("store2", "image-v1"),
            has_store("cache"),
            has_index("image-v1.caibx", "image-v1"),
        ),
        then=(is_rebuilt("image-v1"), holds_nothing_but("cache", "image-v1", fetched=True)),
        run="desync extract -s store1 -s store2 -c cache image-v1.caibx image-v1",
        section="Multiple chunk stores",
    ),
    Example(
        "failover",
        "When a server of a group fails, the other one is asked.",
        '-s "http://server1/|http://server2/"',
        needs=("failover", "http"),
        given=(
            has_store("http://server1/"),
            is_down("http://server1/"),
            has_store("http://server2/", "blob"),
            has_index("blob.caibx", "blob"),
        ),
        then=(is_rebuilt("blob"), prints_nothing),
        run='desync extract -s "http://server1/|http://server2/" blob.caibx blob',
        section="Store failover",
    ),
    Example(
        "store_file_failover",
        "The stores in a store file can be groups too.",
        '{"stores":["/path/to/main|/path/to/backup"]}',
        needs=("failover", "chunk-server"),
        given=(
            has_store("/path/to/main", "blob"),
            has_store("/path/to/backup"),
            has_index("blob.caibx", "blob"),
        ),
        then=(is_rebuilt("blob"),),
        run="""\
echo '{"stores":["/path/to/main|/path/to/backup"]}' > stores.json
"""
        + _served(
            "desync chunk-server --store-file stores.json",
            'desync extract -s "$URL" blob.caibx blob',
        ),
        section="Dynamic store configuration",
    ),
    Example(
        "mount_remote_index",
        "An index that is only on a server is mounted, without a file on disk.",
        "desync mount-index -s http://chunk.store/store http://index.store/myindex.caibx"
        " /mnt/image",
        needs=("mount", "http"),
        given=(
            has_store("http://chunk.store/store", "myindex"),
            has_index("http://index.store/myindex.caibx", "myindex"),
            has_store("/mnt/image"),
        ),
        meanwhile=(mounts("/mnt/image", "myindex"),),
        then=(is_unmounted("/mnt/image"), prints_nothing),
        section="Remote indexes",
    ),
    Example(
        "s3_locations",
        "Stores in S3, in Amazon's service and others, with ways to address a bucket.",
        """\
s3+https://s3-eu-west-3.amazonaws.com/desync.bucket
s3+https://s3-eu-west-3.amazonaws.com/desync.bucket/prefix
s3+http://127.0.0.1:9000/store
s3+http://127.0.0.1:9000/bucket/prefix?lookup=path
s3+https://s3.internal.company/bucket/prefix?lookup=dns
s3+https://example.com/bucket/prefix?lookup=auto
""",
        needs=("s3",),
        given=(has_bucket("store", "blob"), has_keys, has_index("blob.caibx", "blob")),
        then=(
            prints_figures("blob", in_store=True),
            asks_for(
                {
                    "s3+https://s3-eu-west-3.amazonaws.com/desync.bucket": (
                        "https://s3-eu-west-3.amazonaws.com/desync.bucket/chunk"
                    ),
                    "s3+https://s3-eu-west-3.amazonaws.com/desync.bucket/prefix": (
                        "https://s3-eu-west-3.amazonaws.com/desync.bucket/prefix/chunk"
                    ),
                    "s3+http://127.0.0.1:9000/store": "http://127.0.0.1:9000/store/chunk",
                    "s3+http://127.0.0.1:9000/bucket/prefix?lookup=path": (
                        "http://127.0.0.1:9000/bucket/prefix/chunk"
                    ),
                    "s3+https://s3.internal.company/bucket/prefix?lookup=dns": (
                        "https://bucket.s3.internal.company/prefix/chunk"
                    ),
                    "s3+https://example.com/bucket/prefix?lookup=auto": (
                        "https://example.com/bucket/prefix/chunk"
                    ),
                }
            ),
        ),
        run="desync info -s s3+http://127.0.0.1:9000/store?lookup=path blob.caibx",
        section="S3 chunk stores",
    ),
    Example(
        "config",
        "The current configuration is shown: the defaults, without a file.",
        "desync config",
        needs=(CORE,),
        then=(prints_json({"s3-credentials": None, "store-options": None}),),
        section="Configuration",
    ),
    Example(
        "config_write",
        "The current configuration is written to the file in the home directory.",
        "desync config -w",
        needs=(CORE,),
        then=(
            prints("home/.config/desync/config.json"),
            writes_json(
                "../home/.config/desync/config.json",
                {"s3-credentials": None, "oci-credentials": None, "store-options": None},
            ),
        ),
        section="Configuration",
    ),
    Example(
        "config_example",
        "The example of a configuration is understood, and shown again.",
        json.dumps(CONFIGURATION),
        needs=(CORE,),
        given=(has_text("/path/to/config.json", json.dumps(CONFIGURATION)),),
        then=(prints_json(CONFIGURATION),),
        run="desync --config /path/to/config.json --show-secrets config",
        section="Example config",
    ),
)

_EXAMPLES = (
    Example(
        "extract_cached",
        "A blob is rebuilt from a remote store, and its chunks are cached.",
        "desync extract -s ssh://192.168.1.1/path/to/casync.store/ -c /tmp/store"
        " somefile.tar.caibx somefile.tar",
        needs=("ssh", "cache"),
        given=(
            has_store("ssh://192.168.1.1/path/to/casync.store/", "somefile.tar"),
            has_store("/tmp/store"),
            has_index("somefile.tar.caibx", "somefile.tar"),
        ),
        then=(is_rebuilt("somefile.tar"), holds("/tmp/store", "somefile.tar", fetched=True)),
    ),
    Example(
        "extract_cached_local",
        "A blob is rebuilt from one local store, and its chunks are cached in another.",
        "desync extract -s /path/to/casync.store/ -c /tmp/store somefile.tar.caibx somefile.tar",
        needs=("cache",),
        given=(
            has_store("/path/to/casync.store/", "somefile.tar"),
            has_store("/tmp/store"),
            has_index("somefile.tar.caibx", "somefile.tar"),
        ),
        then=(is_rebuilt("somefile.tar"), holds("/tmp/store", "somefile.tar", fetched=True)),
        part_of="extract_cached",
    ),
    Example(
        "extract_local_first",
        "A blob is rebuilt from a local store and, where that lacks chunks, a remote one.",
        "desync extract -s /some/local/store -s ssh://192.168.1.1/path/to/casync.store/"
        " somefile.tar.caibx somefile.tar",
        needs=("ssh",),
        given=(
            has_store("/some/local/store"),
            has_store("ssh://192.168.1.1/path/to/casync.store/", "somefile.tar"),
            has_index("somefile.tar.caibx", "somefile.tar"),
        ),
        then=(is_rebuilt("somefile.tar"),),
    ),
    Example(
        "extract_local_first_local",
        "A blob is rebuilt from two local stores.",
        "desync extract -s /some/local/store -s /path/to/casync.store/"
        " somefile.tar.caibx somefile.tar",
        needs=(CORE,),
        given=(
            has_store("/some/local/store"),
            has_store("/path/to/casync.store/", "somefile.tar"),
            has_index("somefile.tar.caibx", "somefile.tar"),
        ),
        then=(is_rebuilt("somefile.tar"),),
        part_of="extract_local_first",
    ),
    Example(
        "extract_seeds",
        "The third version of an image is rebuilt with the help of the two before it.",
        """\
desync extract -s /local/store \\
  --seed image-v1.qcow2.caibx \\
  --seed image-v2.qcow2.caibx \\
  image-v3.qcow2.caibx image-v3.qcow2
""",
        needs=("seeds",),
        given=(
            has_store("/local/store", "image-v3.qcow2"),
            has_file("image-v1.qcow2"),
            has_index("image-v1.qcow2.caibx", "image-v1.qcow2"),
            has_file("image-v2.qcow2"),
            has_index("image-v2.qcow2.caibx", "image-v2.qcow2"),
            has_index("image-v3.qcow2.caibx", "image-v3.qcow2"),
        ),
        then=(is_rebuilt("image-v3.qcow2"),),
    ),
    Example(
        "extract_seed_dir",
        "All images in a directory that have indexes beside them are seeds.",
        "desync extract -s /local/store --seed-dir /path/to/images image-v3.qcow2.caibx"
        " image-v3.qcow2",
        needs=("seeds",),
        given=(
            has_store("/local/store", "image-v3.qcow2"),
            has_file("/path/to/images/image-v1.qcow2"),
            has_index("/path/to/images/image-v1.qcow2.caibx", "image-v1.qcow2"),
            has_index("image-v3.qcow2.caibx", "image-v3.qcow2"),
        ),
        then=(is_rebuilt("image-v3.qcow2"),),
    ),
    Example(
        "extract_mixed",
        "Stores of several kinds, one of them a group of two servers, and a cache.",
        """\
desync extract \\
       -s "http://192.168.1.101/casync.store/|http://192.168.1.102/casync.store/" \\
       -s ssh://192.168.1.1/path/to/casync.store/ \\
       -s https://192.168.1.3/ssl.store/ \\
       -c /path/to/cache \\
       somefile.tar.caibx somefile.tar
""",
        needs=("http", "failover", "ssh", "https", "cache"),
        given=(
            has_store("http://192.168.1.102/casync.store/"),
            has_store("ssh://192.168.1.1/path/to/casync.store/"),
            has_store("https://192.168.1.3/ssl.store/", "somefile.tar"),
            has_store("/path/to/cache"),
            has_index("somefile.tar.caibx", "somefile.tar"),
        ),
        then=(is_rebuilt("somefile.tar"), holds("/path/to/cache", "somefile.tar", fetched=True)),
    ),
    Example(
        "extract_mixed_local",
        "A group of two directories, another store, and a cache.",
        """\
desync extract \\
       -s "/mirror1/casync.store/|/mirror2/casync.store/" \\
       -s /path/to/casync.store/ \\
       -c /path/to/cache \\
       somefile.tar.caibx somefile.tar
""",
        needs=("failover", "cache"),
        given=(
            has_store("/mirror1/casync.store/"),
            has_store("/mirror2/casync.store/"),
            has_store("/path/to/casync.store/", "somefile.tar"),
            has_store("/path/to/cache"),
            has_index("somefile.tar.caibx", "somefile.tar"),
        ),
        then=(is_rebuilt("somefile.tar"), holds("/path/to/cache", "somefile.tar", fetched=True)),
        part_of="extract_mixed",
    ),
    Example(
        "extract_in_place",
        "A file is rebuilt in place, so that what is there needn't be fetched again.",
        "desync extract -k -s sftp://192.168.1.1/path/to/store file.caibx file.tar",
        needs=("in-place", "sftp"),
        given=(
            has_store("sftp://192.168.1.1/path/to/store", "file.tar"),
            has_index("file.caibx", "file.tar"),
        ),
        then=(is_rebuilt("file.tar"),),
    ),
    Example(
        "extract_in_place_local",
        "A file is rebuilt in place from a local store.",
        "desync extract -k -s /path/to/store file.caibx file.tar",
        needs=("in-place",),
        given=(
            has_store("/path/to/store", "file.tar"),
            has_index("file.caibx", "file.tar"),
        ),
        then=(is_rebuilt("file.tar"),),
        part_of="extract_in_place",
    ),
    Example(
        "extract_block_device",
        "An image is written to a block device.",
        "desync extract -k -s /mnt/store image.caibx /dev/sdc",
        needs=("in-place", "block-devices"),
        given=(
            has_store("/mnt/store", "image"),
            has_index("image.caibx", "image"),
            has_block_device("/dev/sdc", 2 << 20),
        ),
        then=(begins_with("/dev/sdc", "image"),),
    ),
    Example(
        "extract_remote_index",
        "The index is on a server, too.",
        "desync extract -k -s sftp://192.168.1.1/path/to/store http://192.168.1.2/file.caibx"
        " file.tar",
        needs=("in-place", "sftp", "http"),
        given=(
            has_store("sftp://192.168.1.1/path/to/store", "file.tar"),
            has_index("http://192.168.1.2/file.caibx", "file.tar"),
        ),
        then=(is_rebuilt("file.tar"),),
    ),
    Example(
        "verify",
        "A store in which all is well is verified, and there is nothing to say on stdout.",
        "desync verify -s /some/local/store",
        needs=(CORE,),
        given=(has_store("/some/local/store", "somefile.tar"),),
        then=(prints_nothing, holds("/some/local/store", "somefile.tar")),
    ),
    Example(
        "verify_bad",
        "A bad chunk is reported on stdout, and not removed.",
        "desync verify -s /some/local/store",
        needs=(CORE,),
        given=(
            has_store("/some/local/store", "somefile.tar"),
            has_bad_chunk("/some/local/store", "somefile.tar"),
        ),
        then=(names_bad_chunk("/some/local/store", "somefile.tar", stays=True),),
        code=1,
        part_of="verify",
    ),
    Example(
        "cache",
        "The chunks of some indexes are copied from a remote store to a local one.",
        "desync cache -s ssh://192.168.1.1/path/to/casync.store/ -c /local/cache"
        " somefile.tar.caibx other.file.caibx",
        needs=("cache", "ssh"),
        given=(
            has_store("ssh://192.168.1.1/path/to/casync.store/", "somefile.tar", "other.file"),
            has_store("/local/cache"),
            has_index("somefile.tar.caibx", "somefile.tar"),
            has_index("other.file.caibx", "other.file"),
        ),
        then=(holds("/local/cache", "somefile.tar", "other.file"),),
    ),
    Example(
        "cache_local",
        "The chunks of some indexes are copied from one local store to another.",
        "desync cache -s /path/to/casync.store/ -c /local/cache"
        " somefile.tar.caibx other.file.caibx",
        needs=("cache",),
        given=(
            has_store("/path/to/casync.store/", "somefile.tar", "other.file", "third"),
            has_store("/local/cache"),
            has_index("somefile.tar.caibx", "somefile.tar"),
            has_index("other.file.caibx", "other.file"),
        ),
        then=(
            holds("/local/cache", "somefile.tar", "other.file"),
            holds_nothing_but("/local/cache", "somefile.tar", "other.file"),
        ),
        part_of="cache",
    ),
    Example(
        "list_chunks",
        "The ids of the chunks in an index are printed.",
        "desync list-chunks somefile.tar.caibx",
        needs=(CORE,),
        given=(has_index("somefile.tar.caibx", "somefile.tar"),),
        then=(prints_ids("somefile.tar"),),
    ),
    Example(
        "chop",
        "The chunks of a file that is there are stored according to its index.",
        "desync chop -s /some/local/store somefile.tar.caibx somefile.tar",
        needs=(CORE,),
        given=(
            has_store("/some/local/store"),
            has_index("somefile.tar.caibx", "somefile.tar"),
            has_file("somefile.tar"),
        ),
        then=(
            holds("/some/local/store", "somefile.tar"),
            holds_nothing_but("/some/local/store", "somefile.tar"),
        ),
    ),
    Example(
        "chop_ignore",
        "Chunks that another index names aren't stored.",
        "desync chop -s /some/local/store --ignore image-v1.iso.caibx image-v2.iso.caibx"
        " image-v2.iso",
        needs=(CORE,),
        given=(
            has_store("/some/local/store"),
            has_index("image-v1.iso.caibx", "image-v1.iso"),
            has_index("image-v2.iso.caibx", "image-v2.iso"),
            has_file("image-v2.iso"),
        ),
        then=(holds_nothing_but("/some/local/store", "image-v2.iso", without="image-v1.iso"),),
    ),
    Example(
        "tar",
        "A directory tree is packed into an archive.",
        "desync tar archive.catar /some/dir",
        needs=("archives",),
        given=(has_tree("/some/dir"),),
        then=(packs("archive.catar", "/some/dir"),),
    ),
    Example(
        "tar_index",
        "A directory tree is packed into an archive, which is stored in chunks.",
        "desync tar -i -s /some/local/store archive.caidx /some/dir",
        needs=("archives",),
        given=(has_store("/some/local/store"), has_tree("/some/dir")),
        then=(packs("archive.caidx", "/some/dir", "/some/local/store"),),
    ),
    Example(
        "untar",
        "An archive is unpacked.",
        "desync untar archive.catar /some/dir",
        needs=("archives",),
        given=(has_archive("archive.catar", "tree"),),
        then=(unpacks("/some/dir", "tree"),),
    ),
    Example(
        "untar_index",
        "An archive that is stored in chunks is unpacked.",
        "desync untar -i -s /some/local/store archive.caidx /some/dir",
        needs=("archives",),
        given=(
            has_store("/some/local/store"),
            has_archive("archive.caidx", "tree", "/some/local/store"),
        ),
        then=(unpacks("/some/dir", "tree"),),
    ),
    Example(
        "tar_from_tar",
        "An archive is made of a tar file.",
        "desync tar --input-format=tar archive.catar /path/to/archive.tar",
        needs=("archives",),
        given=(has_tree("tree"), has_tar("/path/to/archive.tar", "tree")),
        then=(packs("archive.catar", "tree"),),
    ),
    Example(
        "tar_from_stream",
        "An archive is made of what tar writes, whose hard links are files of their own.",
        "tar --hard-dereference -C /path/to/dir -c . |"
        " desync tar --input-format tar archive.catar -",
        needs=("archives",),
        given=(has_tree("/path/to/dir", hard_links=True),),
        then=(packs("archive.catar", "/path/to/dir"),),
    ),
    Example(
        "untar_to_tar",
        "An archive that is stored in chunks becomes a tar file.",
        "desync untar -i -s /some/local/store --output-format=gnu-tar archive.caidx"
        " /path/to/archive.tar",
        needs=("archives",),
        given=(
            has_store("/some/local/store"),
            has_archive("archive.caidx", "tree", "/some/local/store"),
            has_folder_for("/path/to/archive.tar"),
        ),
        then=(becomes_tar("/path/to/archive.tar", "tree"),),
    ),
    Example(
        "prune",
        "Only the chunks that some indexes name remain in a store, once the user has confirmed.",
        "desync prune -s /some/local/store index1.caibx index2.caibx",
        needs=(CORE,),
        given=(
            has_store("/some/local/store", "index1", "index2", "index3"),
            all_is_old("/some/local/store"),
            has_index("index1.caibx", "index1"),
            has_index("index2.caibx", "index2"),
        ),
        then=(
            prints("[y/N]: "),
            holds("/some/local/store", "index1", "index2"),
            holds_nothing_but("/some/local/store", "index1", "index2"),
        ),
        stdin="y\n",
    ),
    Example(
        "chunk_server",
        "A local store is served on port 80.",
        "desync chunk-server -s /some/local/store",
        needs=("chunk-server",),
        given=(has_store("/some/local/store", "blob"), has_index("blob.caibx", "blob")),
        then=(is_rebuilt("blob"),),
        run=_served(
            "desync chunk-server -s /some/local/store",
            'desync extract -s "$URL" blob.caibx blob',
        ),
    ),
    Example(
        "chunk_server_proxy",
        "A server passes on what other servers have, and keeps it in a cache.",
        "desync chunk-server -s http://192.168.1.1/ -s ssh://192.168.1.2/store -c cache -l :8080",
        needs=("chunk-server", "http", "ssh", "cache"),
        given=(
            has_store("http://192.168.1.1/", "image-v1"),
            has_store("ssh://192.168.1.2/store", "image-v2"),
            has_store("cache"),
            has_index("image-v2.caibx", "image-v2"),
        ),
        then=(is_rebuilt("image-v2"), holds("cache", "image-v2", fetched=True)),
        run=_served(
            "desync chunk-server -s http://192.168.1.1/ -s ssh://192.168.1.2/store -c cache",
            'desync extract -s "$URL" image-v2.caibx image-v2',
        ),
    ),
    Example(
        "chunk_server_reload",
        "A server reads its store file again when it gets SIGHUP.",
        """\
# Create store file
echo '{"stores": ["http://192.168.1.1/"], "cache": "/tmp/cache"}` > stores.json

# Start the server
desync chunk-server --store-file stores.json -l :8080

# Modify
echo '{"stores": ["http://192.168.1.2/"], "cache": "/tmp/cache"}` > stores.json

# Reload
killall -1 desync
""",
        needs=("chunk-server", "reload", "http", "cache"),
        given=(
            has_store("http://192.168.1.1/", "image-v1"),
            has_store("http://192.168.1.2/", "image-v2"),
            has_store("/tmp/cache"),
            has_index("image-v1.caibx", "image-v1"),
            has_index("image-v2.caibx", "image-v2"),
        ),
        then=(
            is_rebuilt("image-v1"),
            is_rebuilt("image-v2"),
            holds("/tmp/cache", "image-v1", "image-v2", fetched=True),
        ),
        run="""\
echo '{"stores": ["http://192.168.1.1/"], "cache": "/tmp/cache"}' > stores.json
"""
        + _served(
            "desync chunk-server --store-file stores.json",
            'desync extract -s "$URL" image-v1.caibx image-v1',
            """echo '{"stores": ["http://192.168.1.2/"], "cache": "/tmp/cache"}' > stores.json""",
            # What killall does to all of that name.
            "kill -1 $server",
            "until grep -q reloaded said; do kill -0 $server; sleep 0.1; done",
            'desync extract -s "$URL" image-v2.caibx image-v2',
        ),
    ),
    Example(
        "index_server",
        "An index is made and stored on a server that takes indexes.",
        """\
server# desync index-server -s /mnt/indexes --writable -l :8080

client# desync make -s /some/store http://192.168.1.1:8080/file.vmdk.caibx file.vmdk
""",
        needs=("index-server", "http"),
        given=(has_store("/mnt/indexes"), has_store("/some/store"), has_file("file.vmdk")),
        then=(
            describes("/mnt/indexes/file.vmdk.caibx", "file.vmdk"),
            holds("/some/store", "file.vmdk"),
        ),
        run=_served(
            "desync index-server -s /mnt/indexes --writable",
            'desync make -s /some/store "${URL}file.vmdk.caibx" file.vmdk',
        ),
    ),
    Example(
        "cache_remote",
        "The chunks of an index are copied from one remote store to another.",
        "desync cache -s ssh://192.168.1.2/store -c sftp://192.168.1.3/path/to/store"
        " /path/to/index.caibx",
        needs=("cache", "ssh", "sftp"),
        given=(
            has_store("ssh://192.168.1.2/store", "index"),
            has_store("sftp://192.168.1.3/path/to/store"),
            has_index("/path/to/index.caibx", "index"),
        ),
        then=(holds("sftp://192.168.1.3/path/to/store", "index"),),
    ),
    Example(
        "chunk_server_s3",
        "A server for TLS passes on what a bucket in S3 has.",
        "desync chunk-server -s s3+https://s3-eu-west-3.amazonaws.com/desync.bucket/prefix -c cache"
        " -l 127.0.0.1:https --cert cert.pem --key key.pem",
        needs=("chunk-server", "https", "s3", "cache"),
        given=(
            has_bucket("store", "blob"),
            has_keys,
            has_store("cache"),
            has_index("blob.caibx", "blob"),
        ),
        then=(is_rebuilt("blob"), holds("cache", "blob", fetched=True)),
        run=_served(
            _RUN_CERTIFICATES + "desync chunk-server -s s3+http://127.0.0.1:9000/store -c cache"
            " --cert server.crt --key server.key",
            'desync extract --ca-cert ca.crt -s "$URL" blob.caibx blob',
        ),
    ),
    Example(
        "make",
        "A file is cut, its chunks are stored and its index is written.",
        "desync make -s /some/local/store index.caibx /some/blob",
        needs=(CORE,),
        given=(has_store("/some/local/store"), has_file("/some/blob")),
        then=(describes("index.caibx", "blob"), holds("/some/local/store", "blob")),
    ),
    Example(
        "make_s3",
        "The chunks of a file are stored in S3.",
        "S3_ACCESS_KEY=mykey S3_SECRET_KEY=mysecret desync make -s s3+http://127.0.0.1:9000/store"
        " index.caibx /some/blob",
        needs=("s3",),
        given=(has_file("/some/blob"), has_bucket("store")),
        then=(describes("index.caibx", "blob"), bucket_holds("store", "blob")),
    ),
    Example(
        "mount",
        "The blob of an index appears as a file in a directory.",
        "desync mount-index -s /some/local/store index.caibx /some/mnt",
        needs=("mount",),
        given=(
            has_store("/some/local/store", "index"),
            has_store("/some/mnt"),
            has_index("index.caibx", "index"),
        ),
        meanwhile=(mounts("/some/mnt", "index"),),
        then=(is_unmounted("/some/mnt"), prints_nothing),
    ),
    Example(
        "mount_streamed_index",
        "An index that is itself stored in chunks is rebuilt and mounted.",
        "desync cat -s http://192.168.1.1/store http://192.168.1.2/small.caibx |"
        " desync mount-index -s http://192.168.1.1/store - /mnt/point",
        needs=("mount", "http"),
        given=(
            has_store("http://192.168.1.1/store", "blob"),
            has_index_of_index(
                "http://192.168.1.2/small.caibx", "http://192.168.1.1/store", "blob"
            ),
            has_store("/mnt/point"),
        ),
        meanwhile=(mounts("/mnt/point", "blob", name="-"),),
        then=(is_unmounted("/mnt/point"), prints_nothing),
        # What is ended is the shell.
        code=-signal.SIGTERM,
    ),
    Example(
        "mount_reload",
        "A mount reads its store file again when it gets SIGHUP.",
        """\
# Create the store file
echo '{"stores": ["http://192.168.1.1/"], "cache": "/tmp/cache"}` > stores.json

# Start the mount
desync mount-index --store-file stores.json index.caibx /some/mnt

# Modify the store setup
echo '{"stores": ["http://192.168.1.2/"], "cache": "/tmp/cache"}` > stores.json

# Reload
killall -1 desync
""",
        needs=("mount", "reload", "http", "cache"),
        given=(
            has_store("http://192.168.1.1/"),
            has_store("http://192.168.1.2/", "index"),
            has_store("/tmp/cache"),
            has_store("/some/mnt"),
            has_index("index.caibx", "index"),
        ),
        run="""\
echo '{"stores": ["http://192.168.1.1/"], "cache": "/tmp/cache"}' > stores.json
exec desync mount-index --store-file stores.json index.caibx /some/mnt
""",
        meanwhile=(
            cannot_be_read("/some/mnt", "index"),
            has_changed(
                "stores.json", '{"stores": ["http://192.168.1.2/"], "cache": "/tmp/cache"}'
            ),
            mounts("/some/mnt", "index"),
        ),
        then=(is_unmounted("/some/mnt"), holds("/tmp/cache", "index", fetched=True)),
    ),
    Example(
        "info",
        "It is counted which chunks of an index are in a local store or in S3.",
        "desync info --format=json -s /tmp/store -s s3+http://127.0.0.1:9000/store /path/to/index",
        needs=("s3",),
        given=(
            has_store("/tmp/store"),
            has_bucket("store", "blob"),
            has_keys,
            has_index("/path/to/index", "blob"),
        ),
        then=(prints_figures("blob", in_store=True),),
    ),
    Example(
        "info_local",
        "It is counted which chunks of an index are in a local store.",
        "desync info --format=json -s /tmp/store /path/to/index",
        needs=(CORE,),
        given=(has_store("/tmp/store", "blob"), has_index("/path/to/index", "blob")),
        then=(prints_figures("blob", in_store=True),),
        part_of="info",
    ),
    Example(
        "uncompressed_server",
        "A server keeps and serves uncompressed chunks, which a client asks for and puts there.",
        """\
# Chunk server
echo '{"store-options": {"/path/to/store/":{"uncompressed": true}}}' > /path/to/server.json

desync --config /path/to/server.json chunk-server -w -u -s /path/to/store/ -l :8080

# Client
echo '{"store-options": {"http://store.host:8080/":{"uncompressed": true}}}' > /path/to/client.json

desync --config /path/to/client.json cache -s sftp://remote.host/store -c http://store.host:8080/ /path/to/blob.caibx
""",  # noqa: E501
        needs=("chunk-server", "http", "sftp", "cache"),
        given=(
            has_store("/path/to/store/"),
            has_store("sftp://remote.host/store", "blob"),
            has_index("/path/to/blob.caibx", "blob"),
        ),
        then=(holds("/path/to/store/", "blob", extension=""),),
        run=_served(
            """echo '{"store-options": {"/path/to/store/":{"uncompressed": true}}}'"""
            " > /path/to/server.json\n"
            "desync --config /path/to/server.json chunk-server -w -u -s /path/to/store/",
            """echo '{"store-options": {"'$URL'":{"uncompressed": true}}}'"""
            " > /path/to/client.json",
            'desync --config /path/to/client.json cache -s sftp://remote.host/store -c "$URL"'
            " /path/to/blob.caibx",
        ),
    ),
    Example(
        "uncompressed_local",
        "Chunks of a store that is configured so are stored uncompressed.",
        """\
echo '{"store-options": {"/path/to/store/":{"uncompressed": true}}}' > /path/to/server.json

desync --config /path/to/server.json make -s /path/to/store/ /path/to/blob.caibx /path/to/blob
""",
        needs=(CORE,),
        given=(has_store("/path/to/store/"), has_file("/path/to/blob")),
        then=(
            holds("/path/to/store/", "blob", extension=""),
            describes("/path/to/blob.caibx", "blob"),
        ),
        part_of="uncompressed_server",
    ),
    Example(
        "http_auth",
        "A server wants to see a token, which the client has in its configuration.",
        """\
# Server
DESYNC_HTTP_AUTH="Bearer abcabcabc" desync chunk-server -s /path/to/store -l :8080

# Client
echo '{"store-options": {"http://127.0.0.1:8080/":{"http-auth": "Bearer abcabcabc"}}}' > /path/to/client.json

desync --config /path/to/client.json extract -s http://127.0.0.1:8080/ /path/to/blob.caibx /path/to/blob

""",  # noqa: E501
        needs=("chunk-server", "http"),
        given=(has_store("/path/to/store", "blob"), has_index("/path/to/blob.caibx", "blob")),
        then=(is_rebuilt("/path/to/blob"),),
        run=_served(
            'export DESYNC_HTTP_AUTH="Bearer abcabcabc"\ndesync chunk-server -s /path/to/store',
            """echo '{"store-options": {"'$URL'":{"http-auth": "Bearer abcabcabc"}}}'"""
            " > /path/to/client.json",
            'desync --config /path/to/client.json extract -s "$URL" /path/to/blob.caibx'
            " /path/to/blob",
            'if desync extract -s "$URL" /path/to/blob.caibx /path/to/other; then exit 1; fi',
        ),
    ),
    Example(
        "tls",
        "A server has a certificate of an authority that the client is told of.",
        f"""\
# Building the CA and server certficate
{_CERTIFICATES}
# Chunk server
desync chunk-server -s /path/to/store --key server.key --cert server.crt -l :8443

# Client
desync extract --ca-cert ca.crt -s https://hostname:8443/ image.iso.caibx image.iso
""",
        needs=("chunk-server", "https"),
        given=(has_store("/path/to/store", "image.iso"), has_index("image.iso.caibx", "image.iso")),
        then=(is_rebuilt("image.iso"),),
        run=_served(
            _RUN_CERTIFICATES
            + "desync chunk-server -s /path/to/store --key server.key --cert server.crt",
            'desync extract --ca-cert ca.crt -s "$URL" image.iso.caibx image.iso',
            'if desync extract -s "$URL" image.iso.caibx other.iso; then exit 1; fi',
        ),
    ),
    Example(
        "mutual_tls",
        "Client and server show each other certificates.",
        f"""\
# Building the CA, server and client certficates
{_CERTIFICATES}{_CLIENT_CERTIFICATE}
# Chunk server
desync chunk-server -s /path/to/store --key server.key --cert server.crt --mutual-tls --client-ca ca.crt -l :8443

# Client
desync extract --client-key client.key --client-cert client.crt --ca-cert ca.crt -s https://hostname:8443/ image.iso.caibx image.iso
""",  # noqa: E501
        needs=("chunk-server", "https"),
        given=(has_store("/path/to/store", "image.iso"), has_index("image.iso.caibx", "image.iso")),
        then=(is_rebuilt("image.iso"),),
        run=_served(
            _RUN_CERTIFICATES
            + "desync chunk-server -s /path/to/store --key server.key --cert server.crt"
            " --mutual-tls --client-ca ca.crt",
            "desync extract --client-key client.key --client-cert client.crt --ca-cert ca.crt"
            ' -s "$URL" image.iso.caibx image.iso',
            'if desync extract --ca-cert ca.crt -s "$URL" image.iso.caibx other; then exit 1; fi',
        ),
    ),
)

EXAMPLES = _BEFORE_THE_EXAMPLES + _EXAMPLES

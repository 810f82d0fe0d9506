# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""Tests for desync.config."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from desync.config import (
    Config,
    S3Credentials,
    StoreFlags,
    StoreOptions,
    location_matches,
)
from desync.errors import ConfigError
from desync.options import DEFAULT_RETRY_INTERVAL

# From the documentation of the store-options' keys: pattern, location, whether it matches.
_LOCATIONS = [
    ("https://*", "https://example.com", True),
    ("https://*", "https://example.com/", True),
    ("https://*", "https://example.com/path", False),
    ("https://example.com/*/*/", "https://example.com/a/b/", True),
    ("https://example.com/*/*/", "https://example.com/a/b", True),
    ("https://example.com/*/*/", "https://example.com/a/b/c", False),
    ("https://example.com/path", "https://example.com/path/", True),
    ("https://example.com/path//", "https://example.com/path/", False),
    ("https://example.com/path[0-9]", "https://example.com/path4", True),
    ("https://example.com/path?", "https://example.com/path4", True),
    ("https://example.com/[", "https://example.com/[", False),
    ("http://example.com", "https://example.com", False),
    ("s3+https://h/b*", "s3+https://h/bucket", True),
    ("*", "https://example.com/path", False),
    ("/path*", "/path_1", True),
    ("/path*", "/path/to", False),
    ("/path/to/../x", "/path/x", True),
    ("/path/x/", "/path/x", True),
    ("/path/x", "/path/x/", True),
    ("/path/[", "/path/[", False),
    ("./relative", "relative", True),
    ("C:/x", "C:/x", True),
]


class ConfigTestCase(SynchronousTestCase):
    """Something with a configuration file."""

    def config_file(self, content: Any) -> str:
        """Write a configuration, as JSON unless it's text, and give its path."""
        path: str = self.mktemp()
        text = content if isinstance(content, str) else json.dumps(content)
        Path(path).write_text(text)
        return path

    def config(self, content: Any, **environ: str) -> Config:
        """Load a configuration."""
        return Config.load(self.config_file(content), environ)

    def refusal(self, content: Any) -> str:
        """Say why a configuration isn't loaded, without the path before it."""
        path = self.config_file(content)
        error = self.assertRaises(ConfigError, Config.load, path, {})
        prefix = f"reading {path}: "
        self.assertTrue(str(error).startswith(prefix), str(error))
        return str(error)[len(prefix) :]


class LoadTests(ConfigTestCase):
    """Reading the file."""

    def test_no_file(self) -> None:
        """Without a file in the home directory, the configuration is empty and knows its path."""
        home = self.mktemp()
        config = Config.load(None, {"HOME": home})
        self.assertEqual(config.path, f"{home}/.config/desync/config.json")
        self.assertEqual(config.options_for("/store"), StoreOptions())

    def test_no_home(self) -> None:
        """Without HOME, or with an empty one, there's no file to look for."""
        self.assertIsNone(Config.load(None, {}).path)
        self.assertIsNone(Config.load(None, {"HOME": ""}).path)

    def test_empty_name(self) -> None:
        """An empty --config is none, as in Go desync."""
        config = Config.load("", {"HOME": "/nonexistent"})
        self.assertEqual(config.path, "/nonexistent/.config/desync/config.json")

    def test_file_in_home(self) -> None:
        """The file in the home directory is found."""
        home = Path(self.mktemp())
        (home / ".config/desync").mkdir(parents=True)
        text = '{"store-options": {"/a": {"uncompressed": true}}}'
        (home / ".config/desync/config.json").write_text(text)
        config = Config.load(None, {"HOME": str(home)})
        self.assertTrue(config.options_for("/a").uncompressed)

    def test_named_file_missing(self) -> None:
        """A file that the user named has to exist, unless it's about to be written."""
        path = self.mktemp()
        error = self.assertRaises(ConfigError, Config.load, path, {})
        self.assertEqual(str(error), f"{path}: No such file or directory")
        self.assertEqual(Config.load(path, {}, may_be_missing=True).path, path)

    def test_unreadable(self) -> None:
        """A file that can't be read is an error, wherever it is."""
        path = self.mktemp()
        os.mkdir(path)
        error = self.assertRaises(ConfigError, Config.load, path, {}, may_be_missing=True)
        self.assertEqual(str(error), f"{path}: Is a directory")

    def test_strict_json(self) -> None:
        """Trailing commas, comments, trailing text and NaN aren't JSON."""
        for text in ('{"a": 1,}', "{} // x", "{} {}", '{"a": NaN}', "", "{'a': 1}", "[" * 100_000):
            self.refusal(text)

    def test_not_an_object(self) -> None:
        """A configuration is an object, as are its sections and their entries."""
        self.assertEqual(self.refusal([]), "the configuration must be an object, not a list")
        self.assertEqual(
            self.refusal({"store-options": []}), "store-options must be an object, not a list"
        )
        self.assertEqual(
            self.refusal({"store-options": {"/a": 1}}),
            'store-options for "/a" must be an object, not the number 1',
        )

    def test_null(self) -> None:
        """null is the same as leaving something out, everywhere."""
        for content in (
            None,
            {"store-options": None},
            {"store-options": {"/a": None}},
            {"store-options": {"/a": {"n": None, "error-retry": None, "ca-cert": None}}},
        ):
            self.assertEqual(self.config(content).options_for("/a"), StoreOptions())

    def test_field_names(self) -> None:
        """Names of fields match in any case, unknown ones are ignored; locations keep theirs."""
        config = self.config(
            {"Store-OPTIONS": {"/A": {"Uncompressed": True, "color": 1.5}}, "extra": [1.5]}
        )
        self.assertTrue(config.options_for("/A").uncompressed)
        self.assertFalse(config.options_for("/a").uncompressed)

    def test_wrong_kinds(self) -> None:
        """Values of the wrong kind are refused: no floats, no numbers as text, no 1 for true."""
        for field, value, message in (
            ("n", 1.0, "must be a whole number, not the number 1.0"),
            ("timeout", 1e9, "must be a whole number, not the number 1000000000.0"),
            ("error-retry", "3", "must be a whole number, not a string"),
            ("n", True, "must be a whole number, not a boolean"),
            ("uncompressed", 1, "must be true or false, not the number 1"),
            ("ca-cert", [], "must be a string, not a list"),
            ("timeout", 2**63, "is out of range"),
            ("compression-level", 0, "must be between 1 and 22"),
            ("compression-level", 23, "must be between 1 and 22"),
        ):
            refusal = self.refusal({"store-options": {"http://u:pw@h": {field: value}}})
            self.assertEqual(refusal, f'{field} of store-options for "http://u:***@h" {message}')

    def test_deprecated(self) -> None:
        """The deprecated fields work, for HTTP only and where nothing newer is said, and warn."""
        config = self.config(
            {
                "http-timeout": 5,
                "http-error-retry": 7,
                "store-options": {"http://b": {"timeout": 9, "error-retry": 0}},
            }
        )
        found = config.options_for("https://a")
        self.assertEqual((found.timeout, found.error_retry), (5, 7))
        found = config.options_for("http://b")
        self.assertEqual((found.timeout, found.error_retry), (9, 0))
        self.assertEqual(config.options_for("/local"), StoreOptions())
        self.assertEqual(config.options_for("s3+http://a/b"), StoreOptions())
        self.assertEqual(
            config.warnings,
            [
                f"{config.path}: http-timeout is deprecated, use timeout in store-options instead",
                f"{config.path}: http-error-retry is deprecated,"
                " use error-retry in store-options instead",
            ],
        )


class MatchTests(ConfigTestCase):
    """Which entry is a store's."""

    def test_locations(self) -> None:
        """A key matches the locations that the documentation says it does."""
        for pattern, location, expected in _LOCATIONS:
            self.assertIs(location_matches(pattern, location), expected, (pattern, location))
        self.assertTrue(location_matches("relative", os.path.abspath("relative")))

    def test_only_one(self) -> None:
        """Several entries for one store are an error, also if one of them is exact."""
        config = self.config({"store-options": {"http://u:pw@h/*": {}, "http://u:pw@h/a": {}}})
        error = self.assertRaises(ConfigError, config.options_for, "http://u:pw@h/a")
        self.assertEqual(
            str(error), 'multiple store-options entries match the location "http://u:***@h/a"'
        )
        self.assertEqual(config.options_for("http://u:pw@h/b"), StoreOptions())

    def test_all_options(self) -> None:
        """Each field reaches the options."""
        entry: dict[str, Any] = {
            "n": 2,
            "client-cert": "cert",
            "client-key": "key",
            "ca-cert": "ca",
            "trust-insecure": True,
            "http-auth": "auth",
            "http-cookie": "cookie",
            "timeout": -1,
            "error-retry": 0,
            "error-retry-base-interval": 0,
            "skip-verify": True,
            "uncompressed": True,
            "encryption": True,
            "encryption-algorithm": "aes",
            "encryption-key": "secret",
            "any-form": True,
            "single-requests": True,
            "compression-level": 19,
        }
        config = self.config({"store-options": {"/a": entry}})
        self.assertEqual(config.options_for("/a"), StoreOptions(*entry.values()))
        fields = [field.replace("_", "-") for field in StoreOptions._fields if field != "s3"]
        self.assertEqual(fields, list(entry))

    def test_s3_options(self) -> None:
        """The options of a store in S3 hold what its requests are signed with."""
        content = {"s3-credentials": {"https://h": {"access-key": "a", "secret-key": "b"}}}
        config = self.config(content)
        expected = StoreOptions(s3=S3Credentials("a", "b"))
        self.assertEqual(config.options_for("s3+https://h/bucket/prefix"), expected)
        self.assertEqual(config.index_options_for("s3+https://h/bucket/i.caibx"), expected)
        self.assertEqual(config.options_for("https://h/bucket"), StoreOptions())

    def test_index_options(self) -> None:
        """An index's options are those of what is before the last slash of its location."""
        config = self.config({"store-options": {"http://h/x": {"n": 3}, "/a": {"n": 4}}})
        self.assertEqual(config.index_options_for("http://h/x/i.caibx").n, 3)
        self.assertEqual(config.index_options_for("/a/i.caibx").n, 4)
        self.assertEqual(config.index_options_for("/a/b\\i.caibx").n, 4)
        self.assertEqual(config.index_options_for("i.caibx").n, StoreOptions().n)
        config = self.config({"store-options": {".": {"n": 5}}})
        self.assertEqual(config.index_options_for("i.caibx").n, 5)
        self.assertEqual(config.index_options_for("-").n, 5)

    def test_index_encryption(self) -> None:
        """An index's store can't be encrypted, not even standard output."""
        for entry in ({"encryption": True}, {"encryption-key": "k"}):
            config = self.config({"store-options": {"*": {}, ".": entry}})
            error = self.assertRaises(ConfigError, config.index_options_for, "-")
            self.assertEqual(
                str(error),
                'store options for "-": encryption is not supported by index stores',
            )

    def test_encryption_key(self) -> None:
        """The key can come from the environment, which doesn't switch encryption on."""
        config = self.config(
            {"store-options": {"/a": {"encryption": True}}}, DESYNC_ENCRYPTION_KEY="k"
        )
        self.assertEqual(config.options_for("/a").encryption_key, "k")
        self.assertEqual(config.options_for("/b"), StoreOptions())


class FlagTests(ConfigTestCase):
    """The command line's say over the configuration."""

    def test_given_flags_win(self) -> None:
        """Flags that were given replace what is configured, false and 0 included."""
        config = self.config(
            {"store-options": {"/a": {"n": 2, "trust-insecure": True, "error-retry": 5}}}
        )
        flags = StoreFlags(concurrency=7, trust_insecure=False, error_retry=0, ca_cert="ca")
        self.assertEqual(
            config.options_for("/a", flags), StoreOptions(n=7, error_retry=0, ca_cert="ca")
        )

    def test_other_flags_do_not(self) -> None:
        """Flags that weren't given leave the configuration alone, but for the concurrency."""
        entry = {"n": 2, "trust-insecure": True, "error-retry": 0, "skip-verify": True}
        config = self.config({"store-options": {"/a": entry}})
        self.assertEqual(
            config.options_for("/a", StoreFlags()),
            StoreOptions(n=10, trust_insecure=True, error_retry=0, skip_verify=True),
        )

    def test_skip_verify(self) -> None:
        """The command line can only switch skip-verify on."""
        flags = StoreFlags(skip_verify=True)
        self.assertTrue(Config().options_for("/a", flags).skip_verify)


class S3CredentialsTests(ConfigTestCase):
    """Credentials for S3 stores."""

    def test_environment(self) -> None:
        """S3_* win over AWS_*, which win over the file; the region is S3_REGION's then."""
        content = {"s3-credentials": {"https://h": {"access-key": "fa", "aws-region": "fr"}}}
        aws = {
            "AWS_ACCESS_KEY_ID": "aa",
            "AWS_SECRET_ACCESS_KEY": "as",
            "AWS_SESSION_TOKEN": "at",
            "S3_REGION": "r",
        }
        s3 = {"S3_ACCESS_KEY": "sa", "S3_SECRET_KEY": "ss", "S3_SESSION_TOKEN": "st"}
        location = "s3+https://h/bucket"
        found = self.config(content, **aws, **s3).s3_credentials_for(location)
        self.assertEqual(found, S3Credentials("sa", "ss", "st", region="r"))
        found = self.config(content, **aws).s3_credentials_for(location)
        self.assertEqual(found, S3Credentials("aa", "as", "at", region="r"))
        found = self.config(content, S3_REGION="r").s3_credentials_for(location)
        self.assertEqual(found, S3Credentials("fa", region="fr"))

    def test_server(self) -> None:
        """The key is the scheme, the host and the port of the location."""
        config = self.config({"s3-credentials": {"http://127.0.0.1:9000": {"access-key": "a"}}})
        for location, expected in (
            ("s3+http://127.0.0.1:9000/bucket/prefix?lookup=path", "a"),
            ("S3+HTTP://user@127.0.0.1:9000/bucket", "a"),
            ("s3+http://127.0.0.1/bucket", ""),
            ("s3+https://127.0.0.1:9000/bucket", ""),
        ):
            self.assertEqual(config.s3_credentials_for(location).access_key, expected)

    def test_patterns(self) -> None:
        """Keys can be patterns; an exact one wins over them, several of them are an error."""
        config = self.config(
            {
                "s3-credentials": {
                    "https://*.example.com": {"access-key": "pattern"},
                    "https://a.example.com": {"access-key": "exact"},
                    "https://b.*.com": {"access-key": "other"},
                }
            }
        )
        found = config.s3_credentials_for("s3+https://c.example.com/x")
        self.assertEqual(found.access_key, "pattern")
        found = config.s3_credentials_for("s3+https://a.example.com/x")
        self.assertEqual(found.access_key, "exact")
        error = self.assertRaises(
            ConfigError, config.s3_credentials_for, "s3+https://b.example.com/x"
        )
        self.assertEqual(
            str(error),
            'multiple s3-credentials entries match the location "https://b.example.com"',
        )

    def test_credentials_file(self) -> None:
        """Without an access key the AWS file is used; its profile is the entry's or AWS_PROFILE."""
        entry = {"aws-credentials-file": "f", "aws-profile": "p", "aws-region": "r"}
        config = self.config({"s3-credentials": {"https://h": entry}}, AWS_PROFILE="e")
        self.assertEqual(
            config.s3_credentials_for("s3+https://h/b"),
            S3Credentials(credentials_file="f", profile="p", region="r"),
        )
        del entry["aws-profile"]
        content = {"s3-credentials": {"https://h": entry}}
        found = self.config(content, AWS_PROFILE="e").s3_credentials_for("s3+https://h/b")
        self.assertEqual(found.profile, "e")
        found = self.config(content).s3_credentials_for("s3+https://h/b")
        self.assertEqual(found.profile, "default")

    def test_secrets(self) -> None:
        """Every secret of the file and the environment is known, to be masked."""
        config = self.config(
            {
                "s3-credentials": {"https://h": {"access-key": "s1", "secret-key": "s2"}},
                "oci-credentials": {"oci+https://h/r": {"username": "u", "secret": "s3"}},
                "store-options": {
                    "/a": {"http-auth": "s4", "http-cookie": "s5", "ca-cert": "path"},
                    "/b": {"encryption-key": "s6", "http-auth": ""},
                },
            },
            S3_SECRET_KEY="s7",
            DESYNC_HTTP_AUTH="s8",
        )
        self.assertEqual(sorted(config.secrets()), [f"s{n}" for n in range(1, 9)])


class WriteTests(ConfigTestCase):
    """Showing and writing the configuration."""

    def test_empty(self) -> None:
        """An empty configuration has Go's three keys, each null."""
        self.assertEqual(
            Config().to_json(),
            '{\n  "s3-credentials": null,\n  "oci-credentials": null,\n  "store-options": null\n}',
        )

    def test_shape(self) -> None:
        """Entries are sorted, unset fields left out, HTML escaped; retries are always there."""
        config = self.config(
            {
                "store-options": {
                    "b": {"N": 5, "error-retry": 0, "bogus": 1.5, "skip-verify": False},
                    "/a<&>": {"uncompressed": True, "http-auth": "secret"},
                },
                "s3-credentials": {"https://x": {"access-key": "A", "aws-region": ""}},
            }
        )
        self.assertEqual(
            config.to_json(),
            """{
  "s3-credentials": {
    "https://x": {
      "access-key": "A"
    }
  },
  "oci-credentials": null,
  "store-options": {
    "/a\\u003c\\u0026\\u003e": {
      "http-auth": "secret",
      "error-retry": 3,
      "error-retry-base-interval": 500000000,
      "uncompressed": true
    },
    "b": {
      "n": 5,
      "error-retry": 0,
      "error-retry-base-interval": 500000000,
      "uncompressed": false
    }
  }
}""",
        )

    def test_masked(self) -> None:
        """Shown without secrets, no secret is in it, and what isn't one is."""
        content = {
            "s3-credentials": {"https://h": {"access-key": "hunter2", "secret-key": "hunter2"}},
            "oci-credentials": {"oci+https://h/r": {"username": "u", "secret": "hunter2"}},
            "store-options": {
                "https://user:hunter2@h/": {
                    "http-auth": "Bearer hunter2",
                    "http-cookie": "a=hunter2",
                    "encryption-key": "hunter2",
                    "ca-cert": "/ca",
                }
            },
        }
        shown = self.config(content).to_json(show_secrets=False)
        self.assertNotIn("hunter2", shown)
        for kept in ('"https://user:***@h/"', '"http-auth": "***"', '"u"', '"/ca"'):
            self.assertIn(kept, shown)
        self.assertEqual(self.config(content).to_json().count("hunter2"), 7)

    def test_written_is_read_back(self) -> None:
        """What is written is the same configuration, secrets and explicit zeros included."""
        content = {
            "http-timeout": 5,
            "http-error-retry": 6,
            "s3-credentials": {"https://h": {"access-key": "a", "secret-key": "hunter2"}},
            "oci-credentials": {"oci+https://h/r": {"username": "u", "secret": "s"}},
            "store-options": {
                "/a": {"error-retry": 0, "error-retry-base-interval": 0},
                "/b": {"any-form": True, "compression-level": 9, "timeout": -1},
            },
        }
        config = self.config(content)
        config.write()
        again = Config.load(config.path, {})
        self.assertEqual(again.to_json(), config.to_json())
        for location in ("/a", "/b", "http://c"):
            self.assertEqual(again.options_for(location), config.options_for(location))
        self.assertEqual(again.options_for("/a").error_retry, 0)
        self.assertEqual(again.options_for("/c").error_retry_base_interval, DEFAULT_RETRY_INTERVAL)

    def test_creates_directories(self) -> None:
        """Missing directories are made, and only the owner can read the file."""
        path = os.path.join(self.mktemp(), "a", "config.json")
        self.assertEqual(Config(path).write(), path)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertEqual(os.listdir(os.path.dirname(path)), ["config.json"])

    def test_replaces_a_readable_file(self) -> None:
        """A file that others could read is one that only the owner can, once it's written."""
        path = self.config_file({})
        os.chmod(path, 0o644)
        Config(path).write()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)

    def test_through_a_symlink(self) -> None:
        """A symlink to the file stays one."""
        path = self.config_file({})
        link = self.mktemp()
        os.symlink(os.path.abspath(path), link)
        Config(link).write()
        self.assertTrue(os.path.islink(link))
        self.assertIn("store-options", Path(path).read_text())

    def test_nowhere_to_write(self) -> None:
        """Without a path, or where the path can't be written, the message says so."""
        error = self.assertRaises(ConfigError, Config().write)
        self.assertEqual(str(error), "HOME is not set; name a file with --config")
        path = os.path.join(self.config_file({}), "config.json")
        error = self.assertRaises(ConfigError, Config(path).write)
        self.assertEqual(str(error), f"{path}: File exists")

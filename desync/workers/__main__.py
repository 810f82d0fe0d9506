# Copyright (c) The desync-py authors.
# SPDX-License-Identifier: BSD-3-Clause
"""``python -m desync.workers``: a pool worker. The pool starts it; by hand it is of no use."""

from desync.workers.program import main

if __name__ == "__main__":
    main()
